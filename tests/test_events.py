"""What events say of themselves."""

from __future__ import annotations

from inspector.events import Downloading


def test_a_download_says_its_size_and_then_how_far_it_is() -> None:
    announced = Downloading(what="SAE x", file="", done_bytes=0, total_bytes=30_072_000_000)
    assert announced.amount == "30.07 GB"
    under_way = Downloading(
        what="SAE x", file="params.npz", done_bytes=9_072_000_000, total_bytes=30_072_000_000, bytes_per_second=35e6
    )
    assert under_way.amount == "9.07 of 30.07 GB, 35 MB/s, 10 min left"
    unknown = Downloading(what="SAE x", file="params.npz", done_bytes=0, total_bytes=1_000_000)
    assert unknown.amount == "0.00 of 0.00 GB"
