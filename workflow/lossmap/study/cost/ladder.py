"""What one model's ladder costs: its connectors, and the networks that are trained on each."""

from dataclasses import dataclass

from lossmap.study.cost.models import VisionCost
from lossmap.study.cost.networks import ConnectorCost, NetworkCost, connector_cost, network_cost
from lossmap.study.derived import connectors_of, networks_of


@dataclass(frozen=True)
class Ladder:
    """What a model's reconstructors cost. connectors: by name. networks: by connector and network."""

    connectors: dict[str, ConnectorCost]
    networks: dict[tuple[str, str], NetworkCost]

    def of(self, connector: str) -> list[NetworkCost]:
        """The networks of one connector."""
        return [one for (at, _), one in self.networks.items() if at == connector]

    def decoder_flops(self, connector: str) -> int:
        """Operations of all decoders of one connector and share, for one image."""
        return self.connectors[connector].ridge_flops + sum(one.forward_flops for one in self.of(connector))


def ladder_cost(reconstruction: dict, name: str, model: VisionCost, batch: int) -> Ladder:
    """Parameters: batch, images in one. Raises: LossmapError if a control or a network is impossible for this model."""
    settings, connectors, networks = reconstruction["training"], {}, {}
    images_at_once = -(-batch // (settings["processes"] * settings["accumulate"]))
    for connector, spec in connectors_of(reconstruction).items():
        cost = connector_cost(spec, model.pre_grid, model.pre_shape, model.post_shape, model.post_grid)
        connectors[connector] = cost
        for network in networks_of(reconstruction, name, connector):
            spec = {key: value for key, value in reconstruction["networks"][network].items() if key != "models"}
            networks[connector, network] = network_cost(spec, model.pre_shape, cost, images_at_once)
    return Ladder(connectors, networks)
