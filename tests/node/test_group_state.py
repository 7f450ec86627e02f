"""The state of a consumer group, driven with plain values."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync.node.group_state import CREDIT, Group
from tests.size import by_size


def deliver(group, ends, now=0.0, most=10_000):
    """Hand out what is wanted; returns member -> positions."""
    out = {}
    for place, member in group.wanted(ends, now, most):
        group.confirm(member, place, b"%010d" % place.position, now)
        out.setdefault(member, []).append(place.position)
    return out


def id_of(position):
    return b"%010d" % position


def test_members_share():
    """Each event goes to one member, and both get about as many."""
    group = Group()
    group.join(1, {7: 0}, 0.0)
    group.join(2, {7: 0}, 0.0)
    out = deliver(group, {7: 10})
    assert sorted(out[1] + out[2]) == list(range(10))
    assert len(out[1]) == len(out[2]) == 5
    assert deliver(group, {7: 10}) == {}


def test_a_group_begins_with_its_first_member():
    """What was there before is not for it; who joins later changes nothing."""
    group = Group()
    group.join(1, {7: 100}, 0.0)
    group.join(2, {7: 500}, 0.0)
    assert sum(len(p) for p in deliver(group, {7: 110}).values()) == 10


def test_a_nack_brings_it_back_later_each_time():
    """The delay grows; an ack ends it."""
    group = Group()
    group.join(1, {7: 0}, 0.0)
    assert deliver(group, {7: 1}) == {1: [0]}
    now = 0.0
    for attempt in range(1, 5):
        assert group.nack(1, id_of(0), 104, now)
        delay = 0.1 * 2**attempt
        assert deliver(group, {7: 1}, now + delay - 0.01) == {}
        now += delay
        assert deliver(group, {7: 1}, now) == {1: [0]}
    assert group.ack(1, id_of(0), now)
    assert not group.ack(1, id_of(0), now)
    assert not group.nack(1, id_of(0), 104, now)
    assert deliver(group, {7: 1}, now + 100) == {}
    assert group.redelivered == 4


def test_not_me_goes_to_another():
    """DELIVER_AGAIN_NOT_ME asks for another member; alone, the same one gets it again."""
    group = Group()
    group.join(1, {7: 0}, 0.0)
    group.join(2, {7: 0}, 0.0)
    (first,) = deliver(group, {7: 1})
    group.nack(first, id_of(0), 105, 0.0)
    (second,) = deliver(group, {7: 1}, 1.0)
    assert second != first
    group.leave(second, 1.0)
    assert deliver(group, {7: 1}, 2.0) == {first: [0]}


def test_who_leaves_gives_back():
    """What a member held goes to the others at once."""
    group = Group()
    group.join(1, {7: 0}, 0.0)
    assert deliver(group, {7: 3}) == {1: [0, 1, 2]}
    group.ack(1, id_of(1), 0.0)
    group.leave(1, 0.0)
    group.join(2, {7: 0}, 0.0)
    assert deliver(group, {7: 3}) == {2: [0, 2]}


def test_a_silent_member_loses_what_it_holds():
    """After its patience the group gives all of it to others; a member that works through its hand keeps it."""
    group = Group(patience=10.0)
    group.join(1, {7: 0}, 0.0)
    deliver(group, {7: 5})
    for n in range(3):
        group.ack(1, id_of(n), 9.0 * (n + 1))
        assert group.overdue(9.0 * (n + 1)) == 0
    assert group.next_look(27.0) == 10.0
    assert group.overdue(37.1) == 2
    group.join(2, {7: 0}, 37.1)
    out = deliver(group, {7: 5}, 37.1)
    assert sorted(sum(out.values(), [])) == [3, 4]


def test_a_silent_member_is_the_last_choice():
    """What it let lie goes to another, and so does what is new, until it says something."""
    group = Group(patience=10.0)
    group.join(1, {7: 0}, 0.0)
    group.join(2, {7: 0}, 0.0)
    assert deliver(group, {7: 1}) == {1: [0]}
    assert group.overdue(11.0) == 1
    assert deliver(group, {7: 1}, 11.0) == {2: [0]}
    assert group.ack(2, id_of(0), 11.0)
    assert deliver(group, {7: 4}, 12.0) == {2: [1, 2, 3]}
    group.leave(2, 12.0)
    assert deliver(group, {7: 4}, 12.0) == {1: [1, 2, 3]}, "rather a silent one than nobody"
    assert group.ack(1, id_of(1), 13.0)
    group.join(2, {7: 0}, 13.0)
    assert sorted(deliver(group, {7: 8}, 13.0)) == [1, 2]


def test_who_has_no_room_is_waited_for():
    """Only members that may get something now are chosen."""
    group = Group()
    group.join(1, {7: 0}, 0.0)
    group.join(2, {7: 0}, 0.0)
    assert [member for _, member in group.wanted({7: 4}, 0.0, 100, able={2})] == [2] * 4
    assert group.wanted({7: 9}, 0.0, 100, able=set()) == []


def test_an_event_that_is_skipped_comes_again():
    """Who acknowledges the third and not the second gets the second again."""
    group = Group(patience=10.0)
    group.join(1, {7: 0}, 0.0)
    deliver(group, {7: 3})
    group.ack(1, id_of(0), 1.0)
    group.ack(1, id_of(2), 2.0)
    assert group.overdue(10.9) == 0
    assert group.overdue(11.1) == 1
    assert deliver(group, {7: 3}, 11.1) == {1: [1]}


def test_room():
    """A member holds so many events at most."""
    group = Group()
    group.join(1, {7: 0}, 0.0)
    assert len(deliver(group, {7: 10_000})[1]) == CREDIT
    assert deliver(group, {7: 10_000}) == {}
    group.ack(1, id_of(0), 0.0)
    assert deliver(group, {7: 10_000}) == {1: [CREDIT]}


def test_topics_are_the_members_own():
    """A member gets events of its topics only."""
    group = Group()
    group.join(1, {7: 0}, 0.0)
    group.join(2, {8: 0}, 0.0)
    chosen = group.wanted({7: 2, 8: 3}, 0.0, 100)
    assert sorted((m, p.topic) for p, m in chosen) == [(1, 7)] * 2 + [(2, 8)] * 3


def test_at_most_once():
    """Delivered is done."""
    group = Group(at_most_once=True)
    group.join(1, {7: 0}, 0.0)
    deliver(group, {7: 3})
    group.leave(1, 0.0)
    group.join(2, {7: 0}, 0.0)
    assert deliver(group, {7: 3}, 1000.0) == {}


def test_what_outlives_the_process():
    """Acknowledged events do not come again, all others do."""
    group = Group(patience=5.0)
    group.join(1, {7: 0, 8: 4}, 0.0)
    deliver(group, {7: 6, 8: 4})
    for n in (0, 1, 3):
        group.ack(1, id_of(n), 0.0)
    again = Group.load(group.dump())
    again.join(1, {7: 999, 8: 999}, 0.0)
    assert again.patience == 5.0
    assert deliver(again, {7: 7, 8: 5}, 1.0) == {1: [2, 4, 5, 6, 4]}


def test_topics_that_are_gone():
    """Nothing of them is delivered."""
    group = Group()
    group.join(1, {7: 0}, 0.0)
    deliver(group, {7: 2})
    group.nack(1, id_of(0), 104, 0.0)
    group.forget([7])
    assert deliver(group, {}, 100.0) == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["store", "ack", "nack", "not me", "join", "leave", "time", "restart"]),
        st.integers(0, 10**6),
    ),
    max_size=60,
)


@settings(max_examples=by_size(100, 100, 2_000, 20_000), deadline=None)
@given(steps=STEPS)
def test_every_event_is_done_or_comes_again(steps):
    """Whatever happens: nothing is delivered after its ack, nothing to two at once, and in the end all is done."""
    group, now, end, members, numbers = Group(patience=10.0), 0.0, 0, [], iter(range(1, 10**6))
    held, done = {}, set()

    def hand_out():
        for place, member in group.wanted({7: end}, now, 1000):
            assert place.position not in done
            assert all(place.position not in of for of in held.values()), "one member at a time"
            group.confirm(member, place, id_of(place.position), now)
            held[member].append(place.position)

    def join():
        member = next(numbers)
        members.append(member)
        held[member] = []
        group.join(member, {7: 0}, now)

    def expire():
        nonlocal held
        if group.overdue(now):
            kept = {m: [p for p in of if id_of(p) in group._hands[m].tasks] for m, of in held.items()}
            held = kept

    join()
    for what, number in steps:
        member = members[number % len(members)] if members else None
        if what == "store":
            end += number % 5
        elif what == "join":
            join()
        elif what == "time":
            now += number % 15
        elif what == "restart":
            group = Group.load(group.dump())
            members, held = [], {}
            join()
        elif member is None:
            continue
        elif what == "leave":
            group.leave(member, now)
            members.remove(member)
            del held[member]
        elif held[member]:
            position = held[member].pop(number % len(held[member]))
            if what == "ack":
                assert group.ack(member, id_of(position), now)
                done.add(position)
            else:
                assert group.nack(member, id_of(position), 105 if what == "not me" else 104, now)
        expire()
        hand_out()
    for _ in range(200):
        if not members:
            join()
        now += 31.0
        expire()
        hand_out()
        for member in members:
            for position in held[member]:
                assert group.ack(member, id_of(position), now)
                done.add(position)
            held[member] = []
        if len(done) == end:
            break
    assert done == set(range(end))
    assert group.dump()["topics"]["7"] == [end, []]
