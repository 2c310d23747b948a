"""The models that are exported."""

import pytest

from ddpmctl.registry import Registry
from tests.builders import register
from tests.exports.support import CONFIGS, halves


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    registry = Registry(tmp_path_factory.mktemp("pages"))
    for name, config in CONFIGS.items():
        classes = tuple("abcdefghij"[: config.model.num_classes])
        register(registry, name, weights=halves(config), config=config, classes=classes)
    return registry
