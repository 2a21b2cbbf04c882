import pytest
from absl.testing import flagsaver
from small_runs import SETTINGS

from experiments.cli.flags import define_settings, settings_from_flags
from experiments.cli.launch import parse_flags
from experiments.runner.errors import UsageError
from linear_cifar.config import grid


def parse_settings(*words, omit=(), fixed=None, **defaults):
    with flagsaver.flagsaver():
        define_settings(omit=omit, **defaults)
        parse_flags(["command", *words])
        return settings_from_flags(**(fixed or {}))


def test_equal_settings_make_the_same_program():
    configs = grid([0.1], [20], [0.0])
    for settings in (SETTINGS, SETTINGS._replace(flip=False, shift=1), SETTINGS._replace(shift=2)):
        other_seed = settings._replace(seeds=(9,), epochs=7)
        assert hash(settings.train_spec(configs, (3, 32, 32))) == hash(
            other_seed.train_spec(configs, (3, 32, 32))
        )
        assert settings.train_spec(configs, (3, 32, 32)) == other_seed.train_spec(configs, (3, 32, 32))
    shifts = [SETTINGS._replace(shift=pixels).train_spec(configs, (3, 32, 32)) for pixels in (1, 2)]
    assert shifts[0] != shifts[1]


def test_flags_give_the_settings():
    words = ("--val_size=50", "--shuffle=false", "--schedule=step", "--seed=3", "--seeds=2", "--max_loss=4.5")
    settings = parse_settings(*words, "--evaluate=test,train", epochs=7, train="batch1")
    assert (settings.val_size, settings.shuffle, settings.schedule) == (50, False, "step")
    assert (settings.epochs, settings.train, settings.average) == (7, "batch1", 1)
    assert settings.seeds == (3, 4)
    assert settings.max_loss == 4.5
    assert settings.evaluate == ("train", "val", "test")


def test_a_setting_of_the_command_has_no_flag():
    settings = parse_settings(omit=("loss", "evaluate"), fixed={"loss": "bce", "evaluate": ("test",)})
    assert settings.loss == "bce"
    assert settings.evaluate == ("val", "test")
    with pytest.raises(UsageError, match="Unknown command line flag 'loss'"):
        parse_settings("--loss=bce", omit=("loss", "evaluate"))


def test_command_line_overrides_the_recipe():
    settings = parse_settings("--recipe=reference", "--seed=7", recipes=("report", "reference"))
    assert (settings.init, settings.dtype, settings.seeds) == ("numpy", "float64", (7,))


@pytest.mark.parametrize(
    "word", ["--shift=32", "--max_loss=inf", "--max_loss=-1", "--evaluate=tests", "--init=torch", "--seeds=0"]
)
def test_a_value_out_of_range_is_refused(word):
    with pytest.raises(UsageError, match=word.partition("=")[0][2:]):
        parse_settings(word)
