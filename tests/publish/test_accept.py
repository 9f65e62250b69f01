"""What `accept` keeps of an executed copy."""

from hypothesis import given, strategies as st
from nbformat.v4 import new_output

from kempe_nb.publish.accept import joined


def stream(name, text):
    return new_output("stream", name=name, text=text)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=6))
def test_a_text_that_was_cut_is_one_again(parts):
    before = [stream("stdout", part) for part in parts]
    assert joined(before) == [stream("stdout", "".join(parts))]
    # What was given is as it was.
    assert [output.text for output in before] == parts


def test_other_outputs_and_other_streams_stay_apart_and_in_order():
    shown = new_output("display_data", {"text/plain": "figure"})
    outputs = [stream("stdout", "a"), stream("stderr", "b"), stream("stdout", "c"), shown]
    assert joined(outputs) == outputs
    assert joined([]) == []
    assert joined([stream("stdout", "a"), shown, stream("stdout", "b")])[1] == shown
