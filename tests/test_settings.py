import pytest
from absl.testing import flagsaver
from small_runs import SETTINGS

from experiments.cli.flags import define_settings, sweep_from_flags
from experiments.cli.launch import parse_flags
from experiments.runner.errors import UsageError
from linear_cifar.data.prepare import prepare_data
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.training import Descent


def parse_sweep(*words, omit=(), fixed=None, **defaults):
    with flagsaver.flagsaver():
        define_settings(omit=omit, **defaults)
        parse_flags(["command", *words])
        return sweep_from_flags("small", (), **(fixed or {}))


def parse_settings(*words, **options):
    return parse_sweep(*words, **options).settings


def test_equal_settings_make_the_same_program():
    def spec(settings):
        options = settings.fit_options((3, 32, 32))
        return Descent(**{name: options[name] for name in Descent._fields}).spec

    for settings in (SETTINGS, SETTINGS._replace(flip=False, shift=1), SETTINGS._replace(shift=2)):
        longer = settings._replace(epochs=7)
        assert hash(spec(settings)) == hash(spec(longer))
        assert spec(settings) == spec(longer)
    shifts = [spec(SETTINGS._replace(shift=pixels)) for pixels in (1, 2)]
    assert shifts[0] != shifts[1]


def test_flags_give_the_settings():
    words = ("--val_size=50", "--shuffle=false", "--schedule=step", "--seed=3", "--seeds=2", "--max_loss=4.5")
    sweep = parse_sweep(*words, "--evaluate=test,train", epochs=7, train="batch1")
    settings = sweep.settings
    assert (settings.val_size, settings.shuffle, settings.schedule) == (50, False, "step")
    assert (settings.epochs, settings.train, settings.average) == (7, "batch1", 1)
    assert sweep.seeds == (3, 4)
    assert settings.max_loss == 4.5
    assert settings.evaluate == ("train", "val", "test")


def test_a_setting_of_the_command_has_no_flag():
    settings = parse_settings(omit=("loss", "evaluate"), fixed={"loss": "bce", "evaluate": ("test",)})
    assert settings.loss == "bce"
    assert settings.evaluate == ("val", "test")
    with pytest.raises(UsageError, match="Unknown command line flag 'loss'"):
        parse_settings("--loss=bce", omit=("loss", "evaluate"))


def test_command_line_overrides_the_recipe():
    sweep = parse_sweep("--recipe=reference", "--seed=7", recipes=("report", "reference"))
    assert (sweep.settings.init, sweep.settings.dtype, sweep.seeds) == ("numpy", "float64", (7,))


def test_folds_are_replicates_of_every_seed():
    sweep = parse_sweep("--folds=2", "--seeds=2", selects=True)
    data = prepare_data(make_synthetic(n_train=300, n_test=10), folds=sweep.settings.folds)
    names = [(replicate.seed, replicate.fold) for replicate in sweep.fit_arguments(data)["seeds"]]
    assert names == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.raises(UsageError, match="Unknown command line flag 'folds'"):
        parse_sweep("--folds=2")


@pytest.mark.parametrize(
    "word", ["--shift=32", "--max_loss=inf", "--max_loss=-1", "--evaluate=tests", "--init=torch", "--seeds=0"]
)
def test_a_value_out_of_range_is_refused(word):
    with pytest.raises(UsageError, match=word.partition("=")[0][2:]):
        parse_settings(word)
