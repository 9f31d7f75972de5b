"""What `lossmap doctor` prints, and what it finds wrong."""

import importlib.metadata
import os
import shutil
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from lossmap.errors import LossmapError
from lossmap.study.steps import doctor


def test_versions_devices_and_disk_are_printed_and_no_token(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    doctor.run()
    text = capsys.readouterr().out
    for package in ("torch", "transformers", "zarr", "snakemake"):
        assert f"{package} {importlib.metadata.version(package)}" in text
    assert "GB free in this folder" in text
    assert "torch sees" in text
    assert "HF_TOKEN set" in text
    assert "hf_secret" not in text
    assert text.endswith("Nothing is wrong that can be seen from here.\n")


def test_a_package_of_another_version_and_one_that_is_missing_are_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    wanted = [Requirement("numpy<1"), Requirement("no-such-package>=2"), Requirement("pandas>=1")]
    monkeypatch.setattr(doctor, "requirements", lambda: wanted)
    with pytest.raises(LossmapError, match="numpy is .*, wanted <1: pip install 'numpy<1'") as caught:
        doctor.run()
    assert "no-such-package is missing, wanted >=2" in str(caught.value)
    assert "pandas" not in str(caught.value)


def test_a_full_disk_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(LossmapError, match=r"1\.0 GB are free, the default study wants 2 GB"):
        doctor.run()


def test_a_folder_that_may_not_be_written_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(LossmapError, match="may not be written; start in a folder of your own"):
        doctor.run()
