from test_results import SETTINGS

from linear_cifar.config import grid


def test_the_same_settings_make_the_same_program():
    configs = grid([0.1], [20], [0.0])
    for settings in (SETTINGS, SETTINGS._replace(flip=False, shift=1), SETTINGS._replace(shift=2)):
        again = settings._replace(seeds=(9,), epochs=7)
        assert hash(settings.recipe(configs)) == hash(again.recipe(configs))
        assert settings.recipe(configs) == again.recipe(configs)
    assert SETTINGS._replace(shift=1).recipe(configs) != SETTINGS._replace(shift=2).recipe(configs)
