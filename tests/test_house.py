"""The house: public names lead where they did, rooms are few and modules short."""

import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

import identity_props
from identity_props.trainers.names import NAMES

HOUSE = Path(identity_props.__file__).parent
ADAPTERS = {*(name.replace("-", "_") for name in NAMES if name != "plain"), "keras", "beside_tensorflow"}
ELSEWHERE = ("suite", "__main__", *(f"trainers.{name}" for name in ADAPTERS))  # frameworks import the world


def test_public_names_are_no_rooms_once_every_room_is_open():
    for found in pkgutil.walk_packages([str(HOUSE)], "identity_props."):
        if not found.name.removeprefix("identity_props.").startswith(ELSEWHERE):
            import_module(found.name)
    for name in identity_props.__all__:
        assert not isinstance(getattr(identity_props, name), ModuleType), name


def test_at_most_twenty_rooms_lie_at_the_top():
    assert len([*HOUSE.glob("*.py"), *HOUSE.glob("*/__init__.py")]) <= 20


def test_modules_are_short():
    for module in HOUSE.rglob("*.py"):
        most = 150 if module.parent.name == "cli" else 320
        assert len(module.read_text().splitlines()) <= most, module
