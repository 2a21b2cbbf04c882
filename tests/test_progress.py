from experiments.cli.progress import EpochsBar


def test_shares_of_epochs_fill_the_bar_and_never_more(capsys):
    with EpochsBar(2, "title") as bar:
        bar.skip(2 / 49)
        for _ in range(2 * 49):  # one more than are left
            bar.advance(1 / 49 + 1e-12, "remark")
    assert "| 2/2 [" in capsys.readouterr().err


def test_a_file_gets_few_lines_of_progress(capsys):
    with EpochsBar(1_000, "title") as bar:
        for _ in range(1_000):
            bar.advance(1, "remark")
    assert capsys.readouterr().err.count("epoch/s") <= 3
