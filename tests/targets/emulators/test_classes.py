"""Classes of executed instructions by their encodings, beside what GNU's disassembler reads in the same bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import get_target
from tvmcompress.targets.emulators import plugin
from tvmcompress.targets.emulators.artifact import EmulatedArtifact

KINDS = ["aarch64-linux-gnu", "arm-linux-gnueabihf", "arm-none-eabi"]
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ["cc", *(f"{kind}-objdump" for kind in KINDS)])), reason="needs binutils"
)
WIDTH = r"(\.[wn])?"
CONDITION = "(eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al)?"
_END = CONDITION + WIDTH
NAMES = {
    "branch": rf"(b|bl|bx|blx){_END}|cbn?z|tb[bh]{_END}|(le|wls|dls)(tp)?(\.\d+)?|b\.{CONDITION}|br|blr|ret|tbn?z",
    "load": rf"(ldr(b|h|sb|sh|sw|d|t|bt|ex)?|ld(m|mia|mdb|mib|mda|mfd)|pop){_END}|ld\dr?|ldp(sw)?|ldnp|ldur\w*|"
    rf"v(ld\d|ldr\w*|ldm\w*|pop){CONDITION}(\.\d+|\.[us]\d+)?",
    "store": rf"(str(b|h|d|t|bt|ex)?|st(m|mia|mdb|mib|mda|mfd)|push){_END}|st\d|stp|stnp|stur\w*|"
    rf"v(st\d|str\w*|stm\w*|push){CONDITION}(\.\d+)?",
    "integer": rf"(add|adc|sub|sbc|rsb|rsc|and|orr|orn|eor|bic|mov|mvn|mul|mla|neg|lsl|lsr|asr|ror|rrx)s?{_END}|"
    rf"(cm[pn]|tst|teq|mov[wt]|addw|subw|adr|clz|rev|rev16|revsh|rbit|bfi|bfc|[us]bfx|mls|[us]div|[us]mull|[us]mlal|umaal){_END}|"
    rf"([su]xta?[bh](16)?|[su]sat(16)?|qd?(add|sub)|pkh(bt|tb)|sml[as]l?[bdtw]\w?x?|smu[al]\w\w?|smm(la|ls|ul)r?){_END}|"
    rf"([su]h?(add|sub)(8|16)|sel){_END}|madd|msub|[us]maddl|sxt[bhw]|uxt[bh]|mov[zkn]|c(cmp|sel|set|sinc|inc)|ubfiz|sbfiz|extr|"
    "[us]mulh",
    "vector": rf"v(add|sub|mul|mla|mls|fm[as]|div|neg|abs|cvt\w*|mov|mvn|dup|cmpe?|mrs|mull|mlal|max){CONDITION}(\.\S+)?|"
    rf"v(min|and|orr|eor){CONDITION}(\.\S+)?|"
    rf"v(shl|shr|rshr|qmovn|qrdmulh|qdmulh|rshl|ext|pad[ad]l|padd|zip|uzp|trn|tbl|rev\d\d|sel|(max|min)nm){CONDITION}(\.\S+)?|"
    rf"v(mlada?v\w*|mlava|pst|hadd|bic|rsqrte|sqrt|ctp){CONDITION}(\.\S+)?|[su]cvtf|dup|ins|[us]mov|[su]dot|smmla|movi|mvni|"
    r"f(mov|add|sub|mul|mla|mls|madd|msub|nmul|div|neg|abs|cmpe?|cvt\w+|(max|min)(nm)?|sqrt|rint\w)|sqr?dmulh|ext|zip\d|uzp\d|trn\d|"
    r"tbl|tbx|(s|u|sq|uq)?(xtn|xtun|xtl|shl|shr|sra|rshl|rshr|mull|mlal|addlp?|adalp|addw|subl|maxv?|minv?|addv|addp)2?|rev64|cm[a-z]{2}",
    "other": rf"it[te]*{CONDITION}|[di]sb|dmb|pld|mrs|msr",
}
"""Instructions that compilers use, but for those that are told by their operands."""
ODD = re.compile(
    r"v(ld|st)r\t[^sdqr]|ldrs?[bh]\S*\tpc|^(cm[np]|teq|tst|lsl|lsr|asr|ror)\S*\tpc|illegal|invalid|undefined|UNDEFINED|unpredictable|UNPREDICTABLE|<und>|^\."
)
OBJDUMP = {
    "a64": ["aarch64-linux-gnu-objdump", "-maarch64"],
    "a32": ["arm-linux-gnueabihf-objdump", "-marm", "-marmv8-a"],
    "t32": ["arm-linux-gnueabihf-objdump", "-marm", "-marmv8-a", "-Mforce-thumb"],
    "m": ["arm-none-eabi-objdump", "-marm", "-marmv8.1-m.main", "-Mforce-thumb"],
}
MAIN = """
#include <inttypes.h>
#include <stdio.h>
#include "classes.h"
int main(int argc, char **argv) {
  (void)argv;
  uint32_t word;
  while (scanf("%" SCNx32, &word) == 1) {
    const int thumb = word >> 16 >= 0xE800 ? class_of_t32(word, argc > 2) : class_of_t16(word);
    puts(class_names[argc == 1 ? class_of_a32(word) : thumb]);
  }
  (void)class_of_a64;
  return 0;
}
"""


def expected(text: str) -> str | None:
    """The class of an instruction in GNU's assembly language; None of what compilers do not use."""
    name, _, operands = text.partition("\t")
    found = next((kind for kind, names in NAMES.items() if re.fullmatch(names, name)), None)
    if found == "integer" and operands.startswith("pc,") and not name.startswith(("cm", "t")):
        return "branch" if re.fullmatch(rf"(add|adc|sub|sbc|rsb|rsc|and|orr|eor|bic|mov|mvn)s?{CONDITION}", name) else None
    if found in ("integer", None) and re.match(r"[vqdsbh]\d+(\.\w+)?[,\[]", operands) and not name.startswith(("v", "f")):
        return "vector"
    return found


def disassembled(codes: list[bytes], kind: str, folder: Path) -> list[str | None]:
    """Each in GNU's assembly language; None where it is no instruction."""
    (folder / "code.bin").write_bytes(b"".join(codes))
    command = [*OBJDUMP[kind], "-bbinary", "-D", "-z", "--no-show-raw-insn", folder / "code.bin"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^ *([0-9a-f]+):\t(.*)$", out, re.MULTILINE)
    texts = {int(address, 16): text.partition(";")[0].partition("@")[0].partition("//")[0].strip() for address, text in lines}
    starts = np.cumsum([0, *map(len, codes)])[:-1]
    found = [texts[int(start)] for start in starts]
    return [None if ODD.search(text) else text for text in found]


@pytest.fixture(scope="module")
def classify(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    (folder / "main.c").write_text(MAIN)
    headers = Path(plugin.__file__).parent / "plugin"
    subprocess.run(["cc", f"-I{headers}", "-O1", "-o", folder / "classify", folder / "main.c"], check=True)
    return folder / "classify"


@pytest.mark.parametrize("kind", ["a32", "t32", "m"])
def test_any_encoding(kind: str, classify: Path, tmp_path: Path) -> None:
    """Random words, and all of 16 bits."""
    words = [int(word) for word in np.random.default_rng(0).integers(0, 1 << 32, 30_000)]
    if kind == "a32":
        codes = [word.to_bytes(4, "little") for word in words]
    else:
        words = [*range(0xE800), *(word | 0xE8000000 | word >> 3 & 0x1F000000 for word in words)]
        codes = [
            word.to_bytes(2, "little") if word < 0xE800 else word.to_bytes(4, "big")[1::-1] + word.to_bytes(4, "big")[:1:-1]
            for word in words
        ]
    # IT changes how those behind it read; they are tried apart.
    apart = [index for index, word in enumerate(words) if kind == "a32" or not 0xBF00 <= word < 0xC000]
    words, codes = [words[index] for index in apart], [codes[index] for index in apart]
    texts = disassembled(codes, kind, tmp_path)
    arguments = {"a32": [], "t32": ["1"], "m": ["1", "2"]}[kind]
    done = subprocess.run(
        [classify, *arguments], input="\n".join(f"{word:x}" for word in words), capture_output=True, text=True
    )
    wrong = {}
    compared = 0
    for word, text, found in zip(words, texts, done.stdout.split(), strict=True):
        wanted = None if text is None else expected(text)
        # Older processors had other instructions there, or what is done is not defined.
        odd = "cm[np]|teq|tst|ls[lr]|asr|ror|msr" if kind == "a32" else r"rsbs?\tpc"
        if wanted is not None and not re.match(odd, text or ""):
            compared += 1
            if found != wanted:
                wrong[f"{word:x}"] = f"{text}: {found}, not {wanted}"
    assert compared > 10_000
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("core", "integer"),
    [("cortex-a72", True), ("cortex-a7", False), ("cortex-m4", False), ("cortex-m55", True)],
)
def test_what_a_model_executes(
    core: str,
    integer: bool,
    integer_net: tvm.IRModule,
    float_net: tvm.IRModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = get_target(core)
    if target.missing_tools():
        pytest.skip("needs the tool chain")
    written: list[str] = []
    monkeypatch.setattr("tvmcompress.targets.emulators.artifact.can_estimate", lambda: True)
    monkeypatch.setattr(
        "tvmcompress.targets.emulators.artifact.read_blocks", lambda path: written.append(path.read_text()) or []
    )
    artifact = target.build(integer_net if integer else float_net, tmp_path / "built")
    assert isinstance(artifact, EmulatedArtifact)
    measured = artifact.measure(cycles=True)
    assert sum(measured.classes.values()) == pytest.approx(measured.instructions, abs=8)
    lines = [line.split() for line in written.pop().splitlines()]
    for state in {line[2] for line in lines}:
        those = sorted((line for line in lines if line[2] == state), key=lambda line: int(line[0], 16))
        kind = artifact.instructions if state == "a" or artifact.instructions == "m" else "t32"
        texts = disassembled([bytes.fromhex(line[1]) for line in those], kind, tmp_path)
        # Code that is generated has no instruction that is none.
        wanted = [expected(text or "") or ("vector" if str(text).startswith("v") else None) for text in texts]
        compared = [entry for entry in zip(texts, (line[3] for line in those), wanted) if entry[2]]
        assert len(compared) > 0.95 * len(those)
        assert [entry for entry in compared if entry[1] != entry[2]] == []
