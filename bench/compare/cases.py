"""The cases of the comparison. Each yields a Result for every size it measures."""

import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import gguf
import kernels as products
from client import chat, chat_together, picture_part, prompt_of, text_part, words
from measure import Result, Rounds, percentile
from programs import LlamaCpp, Server, Tamp, encode_times_ms

OFF = {"compression": "off", "cache_prompt": False}
NO_CACHE = {"cache_prompt": False}
TOME_4 = {"cache_prompt": False, "compression": {"profile": "off", "image": {"method": "tome", "ratio": 4}}}
IDLE_S = 2.0
LONGEST = 8191  # rows that the default model's 8192 positions leave for a prompt
POLICY = """\
Returns are free within thirty days if the goods are unworn and the label is still on them. Send the \
parcel back with the slip that came with it, and keep the receipt of the post office until the money is \
on your account. Shoes must come in their own box. Underwear, food and cut flowers cannot be returned. \
If something arrived broken, send us a photo within two days, and we replace it or give the money back, \
as you like."""


class NotHere(Exception):
    """A case cannot run on this machine; the message says what it needs."""


@dataclass(frozen=True)
class Setup:
    ours: Tamp
    peer: LlamaCpp
    model: pathlib.Path
    mmproj: pathlib.Path
    models: pathlib.Path  # for files made here
    rounds: Rounds
    quick: bool
    peak: list[dict[str, Any]]
    peer_avx2: LlamaCpp | None = None  # llama.cpp built for AVX2 alone

    def at_most(self, what: str, how: str = "") -> float:
        """The best figure of this machine with the threads of the comparison; 0 = unknown."""
        mine = [p for p in self.peak if p["threads"] == self.ours.threads and p["what"] == what]
        return max((float(p["value"]) for p in mine if how in p["how"]), default=0.0)


# -- text, by llama-bench and our benchmark program --------------------------------------


def prefill_result(s: Setup, case: str, x: str, ours: list[float], peer: list[float], ops: int) -> Result:
    extra: dict[str, Any] = {}
    peak = s.at_most("int8")
    if peak:
        gops = statistics.median(ours) * ops / 1e9
        extra = {"gops": round(gops, 1), "share_of_int8_peak": round(gops / peak, 3)}
    return Result(case, x, "rows/s", True, ours, peer, extra)


def prefill(s: Setup) -> Iterator[Result]:
    ops = gguf.File(s.model).ops_per_row()
    for rows in [512] if s.quick else [64, 128, 256, 512, 1024, 2048, LONGEST]:
        ours, peer = s.rounds.interleave(
            lambda _, n=rows: s.ours.prefill(s.model, n),
            lambda _, n=rows: s.peer.prefill(s.model, n),
        )
        yield prefill_result(s, "prefill", str(rows), ours, peer, ops)


def decode(s: Setup) -> Iterator[Result]:
    per_token = gguf.File(s.model).bytes_per_token()
    for context in [512] if s.quick else [64, 512, 2048, 4096]:
        ours, peer = s.rounds.interleave(
            lambda _, n=context: s.ours.decode(s.model, 64, n),
            lambda _, n=context: s.peer.decode(s.model, 64, n),
        )
        extra: dict[str, Any] = {}
        peak = s.at_most("read", "1 GiB")
        if peak:
            read = statistics.median(ours) * per_token / 1e9
            extra = {"weights_gb_per_s": round(read, 2), "share_of_read_peak": round(read / peak, 3)}
        yield Result("decode", str(context), "tok/s", True, ours, peer, extra)


def quants(s: Setup) -> Iterator[Result]:
    """The same model in other forms: both on the same file, and the file as it is with us
    against the form that the peer is fastest with."""
    files = {"as it is": s.model}
    for kind in ("Q4_0", "Q8_0", "F16", "Q4_K_M"):
        files[kind] = s.models / f"{s.model.stem}.{kind}.gguf"
        s.peer.quantize(s.model, files[kind], kind)
    speed: dict[str, float] = {}
    for kind, file in files.items():
        ops = gguf.File(file).ops_per_row()
        ours, peer = s.rounds.interleave(
            lambda _, f=file: s.ours.prefill(f, 512),
            lambda _, f=file: s.peer.prefill(f, 512),
        )
        speed[kind] = statistics.median(peer)
        yield prefill_result(s, "prefill 512", kind, ours, peer, ops)
        ours, peer = s.rounds.interleave(
            lambda _, f=file: s.ours.decode(f, 64, 64),
            lambda _, f=file: s.peer.decode(f, 64, 64),
        )
        yield Result("decode", kind, "tok/s", True, ours, peer)
    best = max(speed, key=lambda kind: speed[kind])
    ours, peer = s.rounds.interleave(
        lambda _: s.ours.prefill(s.model, 512), lambda _: s.peer.prefill(files[best], 512)
    )
    yield Result("prefill 512", f"against its {best}", "rows/s", True, ours, peer)


def avx2(s: Setup) -> Iterator[Result]:
    """Both without AVX-512, VNNI and AMX: our AVX2 kernels, llama.cpp built for AVX2."""
    if s.peer_avx2 is None:
        raise NotHere("bench/peers/llamacpp.sh avx2 builds the peer it needs")
    ours, peer = replace(s.ours, kernel="avx2"), s.peer_avx2
    ops = gguf.File(s.model).ops_per_row()
    for rows in [512] if s.quick else [64, 512, 2048]:
        got = s.rounds.interleave(
            lambda _, n=rows: ours.prefill(s.model, n), lambda _, n=rows: peer.prefill(s.model, n)
        )
        gops = {"gops": round(statistics.median(got[0]) * ops / 1e9, 1)}
        yield Result("avx2 prefill", str(rows), "rows/s", True, *got, gops)
    for context in [64] if s.quick else [64, 512, 2048]:
        got = s.rounds.interleave(
            lambda _, n=context: ours.decode(s.model, 64, n), lambda _, n=context: peer.decode(s.model, 64, n)
        )
        yield Result("avx2 decode", str(context), "tok/s", True, *got)


def kernels(s: Setup) -> Iterator[Result]:
    """Our products alone, by type, shape and rows, against the peak of the instruction they
    are made of, measured in every round, too. Needs no peer; the ratio is a share."""
    ours, peak = s.rounds.interleave(lambda _: s.ours.kernels(), lambda _: s.ours.peak())
    threads = s.ours.threads
    for i, line in enumerate(ours[0]):
        lines = [round_of[i] for round_of in ours]
        how = products.limit_of(line)
        limits = [products.peak_of(p, how, threads) for p in peak]
        if min(limits) <= 0:
            continue
        extra = {"against": how.replace(" ", "_"), "shape": f"{line['n_out']}x{line['n_in']}", "rows": line["rows"]}
        read = statistics.median(products.peak_of(p, "96 MiB", threads) for p in peak)
        if line["rows"] <= products.FEW_ROWS and read > 0:
            gbs = statistics.median(x["gb_per_s"] for x in lines)
            extra |= {"weights_gb_per_s": round(gbs, 2), "share_of_read_peak": round(gbs / read, 3)}
        yield Result(*products.name_of(line), "GOPS", True, [x["gops"] for x in lines], limits, extra)


# -- over HTTP -----------------------------------------------------------------------------


def clients(s: Setup) -> Iterator[Result]:
    """512 rows in, 64 tokens out, every request another text, no cache."""
    most = 16
    with s.ours.serve(s.model, s.mmproj, most, 1024) as a, s.peer.serve(s.model, s.mmproj, most, 1024) as b:
        n_words = {a.port: prompt_of(a.port, 512, OFF), b.port: prompt_of(b.port, 512, NO_CACHE)}

        def ask(server: Server, n: int, i: int, extra: dict[str, Any]) -> tuple[float, float]:
            texts = [words(n_words[server.port], (n, i, k)) for k in range(n)]
            began = time.perf_counter()
            answers = chat_together(server.port, texts, 64, extra)
            seconds = time.perf_counter() - began
            tokens = sum(x.usage["prompt_tokens"] + x.usage["completion_tokens"] for x in answers)
            return tokens / seconds, percentile([g for x in answers for g in x.gaps_ms()], 99)

        for n in [8] if s.quick else [1, 2, 4, 8, 16]:
            ours, peer = s.rounds.interleave(
                lambda i, n=n: ask(a, n, i, OFF), lambda i, n=n: ask(b, n, i, NO_CACHE)
            )
            yield Result("clients", str(n), "tok/s", True, [x[0] for x in ours], [x[0] for x in peer])
            yield Result("clients itl p99", str(n), "ms", False, [x[1] for x in ours], [x[1] for x in peer])


def mmproj_of(s: Setup, side: int) -> pathlib.Path:
    """The mmproj file whose tower takes pictures of this size."""
    if gguf.File(s.mmproj).values["clip.vision.image_size"] == side:
        return s.mmproj
    target = s.models / f"{s.mmproj.stem}-{side}.gguf"
    if not target.is_file():
        gguf.write_mmproj_for(s.mmproj, side, target)
    return target


def picture(s: Setup) -> Iterator[Result]:
    """Tower and projector of one picture; ours includes the resize. Then ours with a quarter
    of the rows, against the peer with all of them."""
    for side in [224] if s.quick else [224, 448]:
        mmproj = mmproj_of(s, side)
        with s.ours.serve(s.model, mmproj, 1, 2048) as a, s.peer.serve(s.model, mmproj, 1, 2048) as b:

            def one(i: int, server: Server, extra: dict[str, Any], side: int = side) -> dict[str, Any]:
                content = [picture_part(side, i), text_part("What is it?")]
                return chat(server.port, content, 1, extra).timings

            def our_two(i: int, server: Server = a) -> tuple[float, float]:
                return s.ours.vision_ms(one(i, server, OFF)), s.ours.vision_ms(one(i, server, TOME_4))

            def peer_one(i: int, server: Server = b) -> float:
                one(i, server, NO_CACHE)
                return encode_times_ms(server.log.read_text(errors="replace"))[-1]

            our_two(-1)
            peer_one(-1)
            ours, peer = s.rounds.interleave(our_two, peer_one)
            over_off = round(statistics.median(off / tome for off, tome in ours), 2)
            yield Result("picture", f"{side} px", "ms", False, [x[0] for x in ours], peer)
            yield Result(
                "picture tome 4x", f"{side} px", "ms", False, [x[1] for x in ours], peer, {"over_off": over_off}
            )


def photos(s: Setup) -> Iterator[Result]:
    """Ten photos of 224 px and a question, then another question about the same ten: time to
    the first token. Without compression, and by our default plan."""
    ten = 10
    with s.ours.serve(s.model, s.mmproj, 1, 4096) as a, s.peer.serve(s.model, s.mmproj, 1, 4096) as b:

        def two(i: int, server: Server, name: str, extra: dict[str, Any]) -> tuple[float, float]:
            pictures = [picture_part(224, (name, i, k)) for k in range(ten)]
            asked = {"cache_prompt": True, **extra}
            first = chat(server.port, [*pictures, text_part("Which of them is red?")], 1, asked)
            second = chat(server.port, [*pictures, text_part("How many are shirts?")], 1, asked)
            return first.first_token_ms(), second.first_token_ms()

        for name, plan in (("off", {"compression": "off"}), ("balanced", {"compression": "balanced"})):
            ours, peer = s.rounds.interleave(
                lambda i, name=name, plan=plan: two(i, a, name, plan),
                lambda i, name=name: two(i, b, name, {}),
            )
            cold, again = ([x[k] for x in ours] for k in range(2))
            share = {"share_of_cold": round(statistics.median(q / p for p, q in ours), 3)}
            yield Result("ten photos cold", name, "ms", False, cold, [x[0] for x in peer])
            yield Result("ten photos again", name, "ms", False, again, [x[1] for x in peer], share)


def quote(s: Setup) -> Iterator[Result]:
    """Writing an answer that repeats the prompt, as answers about a policy do."""
    with s.ours.serve(s.model, s.mmproj, 1, 1024) as a, s.peer.serve(s.model, s.mmproj, 1, 1024) as b:


        def repeat(server: Server, extra: dict[str, Any]) -> tuple[float, str]:
            answer = chat(server.port, f"Repeat the following text word for word.\n\n{POLICY}", 96, extra)
            return float(answer.timings["predicted_per_second"]), answer.text

        ours, peer = s.rounds.interleave(lambda _: repeat(a, OFF), lambda _: repeat(b, NO_CACHE))
        same = sum(x[1] == y[1] for x, y in zip(ours, peer))
        extra = {"same_text": f"{same} of {len(ours)}"}
        yield Result("quote", "96 tokens", "tok/s", True, [x[0] for x in ours], [x[0] for x in peer], extra)


def start(s: Setup) -> Iterator[Result]:
    """From the start of the process until /health says ready; files in the page cache."""

    def ready(serve: Callable[..., Any]) -> float:
        with serve(s.model, s.mmproj, 4, 1024) as server:
            return float(server.ready_ms)

    ready(s.ours.serve)
    ready(s.peer.serve)
    ours, peer = s.rounds.interleave(lambda _: ready(s.ours.serve), lambda _: ready(s.peer.serve))
    yield Result("start", "ready", "ms", False, ours, peer)


def memory(s: Setup) -> Iterator[Result]:
    """Resident memory once ready and after eight clients; processor time while idle."""

    def measure(serve: Callable[..., Any], extra: dict[str, Any], i: int) -> tuple[float, float, float]:
        with serve(s.model, s.mmproj, 8, 1024) as server:
            loaded = server.resident_bytes()
            texts = [words(480, ("memory", i, k)) for k in range(8)]
            chat_together(server.port, texts, 64, extra)
            after = server.resident_bytes()
            used = server.cpu_seconds()
            time.sleep(IDLE_S)
            idle = (server.cpu_seconds() - used) / IDLE_S * 100
            return loaded / 2**20, after / 2**20, idle

    ours, peer = s.rounds.interleave(
            lambda i: measure(s.ours.serve, OFF, i), lambda i: measure(s.peer.serve, NO_CACHE, i)
    )
    idle = {"idle_cpu_percent": [round(x[2], 2) for x in ours], "peer_idle": [round(x[2], 2) for x in peer]}
    for k, which in enumerate(("loaded", "after 8 clients")):
        yield Result("memory", which, "MiB", False, [x[k] for x in ours], [x[k] for x in peer], idle)


CASES: dict[str, Callable[[Setup], Iterator[Result]]] = {
    "prefill": prefill,
    "decode": decode,
    "quants": quants,
    "avx2": avx2,
    "kernels": kernels,
    "quote": quote,
    "clients": clients,
    "picture": picture,
    "photos": photos,
    "start": start,
    "memory": memory,
}
QUICK = ("prefill", "decode", "picture")
ALONE = ("kernels",)  # need no peer
