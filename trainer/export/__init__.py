"""From a run, or a model trained elsewhere, to a signed bundle that is proven on the runtimes a device uses.

``material`` has photos and facts, ``variants`` converts and asks the gate, ``pack`` writes what passed, ``foreign``
prepares models from elsewhere, ``flow`` is the order of it all.
"""

from trainer.export.flow import GATE_FILE, Exported, export, import_model, table
from trainer.export.foreign import Foreign
from trainer.export.material import Photos, float_answers, load_model, photos_of
from trainer.export.options import Options, bundle_name

__all__ = [
    "GATE_FILE",
    "Exported",
    "Foreign",
    "Options",
    "Photos",
    "bundle_name",
    "export",
    "float_answers",
    "import_model",
    "load_model",
    "photos_of",
    "table",
]
