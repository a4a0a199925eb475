from medgen3d.console import duration, progress_log


class Log:
    """Lines of progress, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now_s = 100.0
        self.show = progress_log(self.lines.append, lambda: self.now_s)

    def after(self, seconds: float, *what: object) -> list[str]:
        """The new lines when `seconds` pass and then something is shown."""
        self.now_s += seconds
        told = len(self.lines)
        self.show(*what)
        return self.lines[told:]


def test_a_line_comes_at_most_every_ten_seconds():
    log = Log()
    assert log.after(0, "verify", 0, 100) == []
    assert log.after(9, "verify", 9, 100) == []
    assert len(log.after(2, "verify", 11, 100)) == 1
    assert log.after(9, "verify", 20, 100) == []
    assert len(log.after(1, "verify", 21, 100)) == 1


def test_no_line_comes_while_nothing_changes():
    log = Log()
    log.after(0, "draw", 0, 4)
    assert [log.after(30, "draw", 0, 4) for _ in range(5)] == [[]] * 5
    assert len(log.after(1, "draw", 1, 4)) == 1
    assert log.after(30, "draw", 1, 4) == []


def test_a_note_that_changes_alone_is_told_every_minute():
    log = Log()
    log.after(0, "job", 0, 1, "3 jobs before it")
    assert log.after(59, "job", 0, 1, "3 jobs before it") == []
    assert log.after(1, "job", 0, 1, "3 jobs before it") == ["job: 0 of 1, 3 jobs before it"]
    assert log.after(90, "job", 0, 1, "3 jobs before it") == []
    assert log.after(1, "job", 0, 1, "running") == ["job: 0 of 1, running"]


def test_a_line_says_rate_and_time_left():
    log = Log()
    log.after(0, "train", 0, 300)
    log.after(5, "train", 10, 300)
    assert log.after(20, "train", 60, 300, "loss 0.2") == ["train: 60 of 300 (2.5/s, 1 min 36 s left), loss 0.2"]
    log.after(0, "draw", 0, 4)
    assert log.after(50, "draw", 1, 4) == ["draw: 1 of 4"]
    assert log.after(30, "draw", 2, 4) == ["draw: 2 of 4 (30 s each, 1 min 0 s left)"]


def test_the_rate_counts_neither_what_was_done_before_nor_the_time_until_the_work_begins():
    log = Log()
    log.after(0, "train", 200, 300)
    log.after(60, "train", 210, 300)
    assert log.after(10, "train", 260, 300) == ["train: 260 of 300 (5/s, 8 s left)"]


def test_the_end_is_told_at_once_and_once():
    log = Log()
    log.after(0, "draw", 0, 4)
    assert log.after(3, "draw", 4, 4) == ["draw: 4 of 4 in 3 s"]
    assert log.after(60, "draw", 4, 4, "late") == []
    assert log.after(0, "phantoms", 2, 2) == ["phantoms: 2 of 2"]


def test_what_begins_anew_under_the_same_name_is_shown_anew():
    log = Log()
    log.after(0, "train", 10, 10)
    assert log.after(60, "train", 0, 10) == []
    assert log.after(5, "train", 10, 10) == ["train: 10 of 10 in 5 s"]


def test_things_do_not_wait_for_one_another():
    log = Log()
    log.after(0, "masks", 0, 9)
    log.after(0, "images", 0, 9)
    assert len(log.after(10, "masks", 1, 9) + log.after(0, "images", 1, 9)) == 2


def test_durations_are_rounded_to_what_matters():
    assert [duration(seconds) for seconds in (0.4, 59.6, 200, 7500)] == ["0 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]
