"""``fit``: the training loop; its callbacks; ``search_lr``: the learning rate that it is given."""

from pyrovae.train.callbacks import BestWeights, Callback, CallbackError, EarlyStopping, Schedules
from pyrovae.train.checkpoints import Checkpoint, write_history
from pyrovae.train.fitting import fit
from pyrovae.train.loggers import Logger, MLflow, TensorBoard, WandB
from pyrovae.train.many import Many, fit_many
from pyrovae.train.progress import Progress
from pyrovae.train.run import History, Run
from pyrovae.train.search import LearningRate, search_lr
from pyrovae.train.trainer import Trainer

__all__ = [
    "BestWeights",
    "Callback",
    "CallbackError",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "LearningRate",
    "Logger",
    "MLflow",
    "Many",
    "Progress",
    "Run",
    "Schedules",
    "TensorBoard",
    "Trainer",
    "WandB",
    "fit",
    "fit_many",
    "search_lr",
    "write_history",
]
