"""RecBole's own `run_recbole` with this package's models, by name.

`register` changes RecBole for the rest of a process, and RecBole reads sys.argv, so each check runs
in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from small_pairs import write_lines, write_small_pair

START = """
import sys
from recbole_cdr_mm import compat
compat.apply()
import recbole.quick_start.quick_start as quick_start
from recbole.config import Config
from recbole.quick_start import run_recbole
from recbole_cdr_mm.register import register
quick = {"epochs": 1, "show_progress": False, "state": "ERROR", "use_gpu": False}
"""


def python(code: str, *argv: str) -> str:
    command = [sys.executable, "-c", START + code, *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_models_run_by_name_as_they_do_by_our_own_command(tmp_path: Path) -> None:
    write_small_pair(tmp_path / "dataset")
    python("""
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.quick_start import run_recbole_mm
register()
for model in ("BiasTransfer", "TargetMF", "MetaMMCDR"):
    stock = run_recbole(model=model, dataset="pair", config_dict=quick)
    ours = run_recbole_mm(model, "pair", config_dict=quick)
    assert 0 < ours["test"]["RMSE"] < 3, ours
    assert ours["test"] == {name: stock["test_result"][name.lower()] for name in ("MAE", "RMSE")}
    assert ours["valid"]["RMSE"] == stock["best_valid_result"]["rmse"]

# A stock run reads the command line, as strictly as ours.
sys.argv = ["run.py", "--model=BiasTransfer", "--item_shrinkage=100"]
shrunk = run_recbole(dataset="pair", config_dict=quick)
assert shrunk["test_result"]["rmse"] != run_recbole_mm("BiasTransfer", "pair")["test"]["RMSE"]
# A notebook's or test runner's own arguments are left out, as RecBole leaves them out.
sys.argv = ["kernel.py", "-f", "k.json", "--verbose"]
run_recbole(model="BiasTransfer", dataset="pair", config_dict=quick)
sys.argv = ["run.py", "--model=BiasTransfer", "--item_shrinkag=100"]
try:
    run_recbole(dataset="pair", config_dict=quick)
    raise AssertionError("took it")
except ConfigError as error:
    assert str(error).startswith("command line: unknown key `item_shrinkag`. Did you mean"), error
""")


def test_registering_twice_changes_nothing() -> None:
    python("""
import recbole.trainer, recbole.data.dataset
from recbole.utils import get_model, get_trainer
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.trainer.staged_trainer import StagedTrainer

def state():
    spaces = (recbole.trainer, recbole.data.dataset, quick_start)
    names = {(m.__name__, k): id(v) for m in spaces for k, v in vars(m).items()}
    return names, {k: id(v) for k, v in sys.modules.items() if k.startswith("recbole.model")}

unregistered = state()
register()
registered = state()
assert registered != unregistered
register()
assert state() == registered
assert len(find_models()) > 5
for name, model in find_models().items():
    assert get_model(name) is model
    assert get_trainer(model.type, name) is StagedTrainer
assert get_trainer(get_model("BPR").type, "BPR") is recbole.trainer.Trainer
""")


def test_recboles_own_models_on_its_own_data_sets_stay_as_they_are(tmp_path: Path) -> None:
    rows = [
        f"u{u}\ti{(3 * u + 7 * n) % 20}\t{1 + (u + n) % 5}" for u in range(30) for n in range(8)
    ]
    header = "user_id:token\titem_id:token\trating:float"
    write_lines(tmp_path / "dataset" / "plain" / "plain.inter", header, *rows)
    code = """
made = []
init = Config.__init__
def recording(self, *args, **kwargs):
    made.append(type(self))
    init(self, *args, **kwargs)
Config.__init__ = recording
# A key that nobody knows and an argument of another form: RecBole takes both.
given = {"model": "BPR", "dataset": "plain", "config_dict": {**quick, "no_such_key": 1}}
get_flops = quick_start.get_flops
quick_start.get_flops = lambda *args: 0  # needs a package that we do not install
before = run_recbole(**given)
quick_start.get_flops = get_flops
register()
after = run_recbole(**given)
assert made == [Config, Config], made
assert before == after and "recall@10" in after["test_result"]
"""
    python(code, "bare")
