"""A process that is found, welcomes and stops like a session and loads nothing: `-m tests.cli.stand_in_session ID`."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from inspector import __version__
from inspector.session import discovery, frames
from inspector.session.protocol import PROTOCOL_VERSION, Hello, Stop, Welcome
from inspector.spec import TargetSpec


async def serve(session_id: str) -> None:
    stop = asyncio.Event()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (body := await frames.read_frame(reader)) is not None:
            match frames.decode_view(body):
                case Hello(request=request):
                    told = Welcome(
                        request=request,
                        version=PROTOCOL_VERSION,
                        program_version=__version__,
                        pid=os.getpid(),
                        log_path="",
                    )
                    writer.write(frames.encode(told))
                case Stop():
                    stop.set()
        writer.close()

    await asyncio.start_unix_server(attend, discovery.socket_path(session_id))
    discovery.write_record(
        discovery.SessionRecord(
            id=session_id,
            pid=os.getpid(),
            model="toy",
            layers=(3,),
            hook="blocks.3.hook_resid_post",
            device="cpu",
            started=time.time() - 65,
            program_version=__version__,
            protocol_version=PROTOCOL_VERSION,
            state="ready",
            log="/nowhere.log",
            target=TargetSpec(model="toy"),
        )
    )
    print("listening", flush=True)
    await stop.wait()
    discovery.remove_files(session_id)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
