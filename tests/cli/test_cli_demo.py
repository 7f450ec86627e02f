"""The demo, and above all that it notices when something is wrong."""

import pytest

from ensign_sync.cli import demo, weather

SENT = list("abcdef")

DIFFERENCES = {
    "nothing": ("abcdef", []),
    "lost": ("abdef", ["1 lost, first c"]),
    "all lost": ("", ["6 lost, first a"]),
    "doubled": ("abcccdef", ["2 received more than once, first c"]),
    "doubled later": ("abcdefa", ["1 received more than once, first a"]),
    "swapped": ("abdcef", ["1 out of order, first c"]),
    "late": ("bcdefa", ["1 out of order, first a"]),
    "foreign": ("abcxdef", ["1 never sent, first x"]),
    "lost and doubled": ("abddef", ["1 lost, first c", "1 received more than once, first d"]),
    "lost and swapped": ("abedf", ["1 lost, first c", "1 out of order, first d"]),
}


@pytest.mark.parametrize(("received", "expected"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_differences(received, expected):
    """Each way in which events can go wrong is named, counted, and told from the others."""
    assert weather.differences(SENT, list(received)) == expected


def test_differences_of_equal_events():
    """Two events with the same text are two events."""
    assert weather.differences(["a", "b", "a"], ["a", "b", "a"]) == []
    assert weather.differences(["a", "b", "a"], ["a", "b"]) == ["1 lost, first a"]


def test_records():
    """The records are all days of four years, and survive the way through JSON."""
    days = weather.read()
    assert (len(days), days[0].date, days[-1].date) == (1461, "2012/01/01", "2015/12/31")
    assert [weather.load(day.dump()) for day in days] == days
    assert weather.wettest(days, 1)[0][:3] == ("2015/03/15", "fog", "55.9")
    assert weather.hottest(days, 1)[0][0] == "2014/08/11"
    with pytest.raises(ValueError, match="is no day"):
        weather.load("[1]")


def result(**changed):
    """Return the result of a demo that went well, but for what is changed."""
    sent = [day.dump() for day in weather.read()]
    read = sent[demo.OFFSET : demo.OFFSET + demo.LIMIT]
    good = demo.Result(sent, len(sent), list(sent), read, publish_seconds=1.0, seconds=1.0)
    return good._replace(**changed)


def test_good_result():
    """Nothing is wrong when everything arrived."""
    assert demo.problems(result()) == []


def test_bad_results():
    """The demo fails for a lost, doubled or swapped event, a missing ack, and a wrong row of the query."""
    good = result()
    received = good.received
    bad = {
        "subscription: 1 lost": result(received=received[:-1]),
        "subscription: 1 received more than once": result(received=[*received, received[3]]),
        "subscription: 1 out of order": result(received=[received[1], received[0], *received[2:]]),
        "subscription: 1461 lost": result(received=[]),
        "publisher: 1,460 of 1,461": result(acknowledged=1460),
        "query: 1 lost": result(queried=good.queried[1:]),
        "query: 1 out of order": result(queried=[*good.queried[1:], good.queried[0]]),
    }
    for expected, wrong in bad.items():
        (text,) = demo.problems(wrong)
        assert text.startswith(expected)


def test_exit_code_of_a_bad_result(capfdbinary):
    """A demo that went wrong still shows what arrived, says on stderr what is wrong, and returns 1."""
    import sys

    from ensign_sync.cli.output import Output

    out = Output(sys.stdout, sys.stderr)
    assert demo.report(result(received=[]), 1.0, out) == 1
    out.flush()
    shown, said = capfdbinary.readouterr()
    assert b"Something went wrong." in shown
    assert said.startswith(b"ensign-sync: subscription: 1461 lost")


def test_demo(start):
    """The demo needs no setting, ends well, and shows what it did, without colour codes."""
    program = start("demo", env={"ENSIGN_ENDPOINT": "nowhere.invalid:1", "ENSIGN_CLIENT_ID": "nobody"})
    assert program.finish() == 0
    assert program.err.seen == []
    text = "\n".join(program.out.seen)
    for count in ("published     1,461", "acknowledged  1,461", "received      1,461", "in order      1,461"):
        assert count in text
    assert "2015/03/15  fog" in text
    assert "Every event arrived once and in order." in text
    assert "\x1b" not in text
