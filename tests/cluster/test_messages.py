"""Messages between processes: what goes in comes out, and what is none is refused."""

import msgpack
import pytest

from helpers.cluster.messages import pack, request_of_values, request_values, unpack
from helpers.cluster.orders import Order, Part
from helpers.workload.request import Request


def test_an_order_crosses_as_it_is():
    request = Request(7, 1.5, 100, 20, (2**64 - 1, 3), tenant="a", slo_class="b", priority=2)
    order = Order(9, 4, request, 1, [1, 2, 3], [5], (0.5, 0.9, 4, 77), (256,))
    assert Order.of(unpack(pack(order.message()))) == order
    assert request_of_values(request_values(request)) == request
    assert Order.of(unpack(pack(Order(9, 4, request, 1).message()))) != order  # control


def test_a_part_crosses_as_it_is():
    part = Part("decode", "batched", verify=True, tamper="zero_cache")
    message = unpack(pack(part.message()))
    assert message["kind"] == "begin"
    assert Part.of(message) == part


@pytest.mark.parametrize("data", [b"", b"\x80\x04K\x01.", msgpack.packb([1, 2]), msgpack.packb({"kind": 3})])
def test_what_is_no_message_is_refused(data):
    """Among them a pickle: it is not read as one."""
    with pytest.raises(ValueError):
        unpack(data)
