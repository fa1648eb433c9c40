"""Text from models and descriptions on its way into files that other programs read: it stays text.

Names of layers, tensors and weights are whatever an exporter, or somebody else, has written into a file. Whatever is
written into C, a linker script, CMake or a path goes through one of these functions. JSON has its own (`json.dumps`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_C_WORDS = """auto break case char const continue default do double else enum extern float for goto if inline int long
register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm typeof bool
true false NULL main"""

# Functions of C99's library: a compiler knows their types, and refuses other things of these names.
_MATH = """acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma
fmax fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf nan
nearbyint nextafter nexttoward pow remainder remquo rint round scalbln scalbn sin sinh sqrt tan tanh tgamma
trunc cabs cacos cacosh carg casin casinh catan catanh ccos ccosh cexp cimag clog conj cpow cproj creal csin
csinh csqrt ctan ctanh"""
_LIBRARY = """abort abs atexit atof atoi atol bsearch calloc div exit free getenv labs llabs ldiv lldiv malloc qsort rand
realloc srand strtod strtol strtoul system isalnum isalpha isblank iscntrl isdigit isgraph islower isprint
ispunct isspace isupper isxdigit tolower toupper iswalnum iswalpha iswblank iswcntrl iswdigit iswgraph
iswlower iswprint iswpunct iswspace iswupper iswxdigit towlower towupper memchr memcmp memcpy memmove memset
strcat strchr strcmp strcpy strcspn strlen strncat strncmp strncpy strpbrk strrchr strspn strstr fprintf fputc
fputs fwrite printf putc putchar puts scanf fscanf snprintf sprintf sscanf vfprintf vprintf vscanf vfscanf
vsnprintf vsprintf vsscanf stdin stdout stderr errno assert imaxabs signbit isnan isinf isfinite isnormal"""
_TAKEN = {*_C_WORDS.split(), *_LIBRARY.split(), *(name + kind for name in _MATH.split() for kind in ("", "f", "l"))}


def identifiers(names: Iterable[str]) -> Mapping[str, str]:
    """For each name an identifier of C and C++, no two the same: letters and digits of the name, as far as it has any."""
    found: dict[str, str] = {}
    taken = set(_TAKEN)
    for name in names:
        if name in found:
            continue
        # Underscores at the ends and two in a row are the compiler's.
        base = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", name))[:60].strip("_")
        base = base if base[:1].isalpha() else f"v{base}"
        made, count = base, 2
        while made in taken:
            made = f"{base}_{count}"
            count += 1
        taken.add(made)
        found[name] = made
    return found


def comment(text: str) -> str:
    """Text for within a comment of one line, of C (/* */) or behind #."""
    # Without "*" it neither ends nor starts a comment, without "\" it does not go on in the next line.
    return "".join(c if " " <= c <= "~" and c not in "*\\" else f"<U+{ord(c):04X}>" for c in text)


def string(text: str) -> str:
    """Text for between the double quotes of a C string, as UTF-8."""

    def escaped(byte: int) -> str:
        c = chr(byte)
        # With "?" there are trigraphs; three octal digits end where they end, hexadecimal ones do not.
        return c if " " <= c <= "~" and c not in '"\\?' else f"\\{byte:03o}"

    return "".join(map(escaped, text.encode("utf-8", "replace")))


def file_name(text: str) -> str:
    """Text as the name of a file: no path, no option, nothing that is hidden or that a shell, make or CMake reads."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[:100].lstrip(".-+").rstrip(".")
    return plain or "unnamed"


def file_names(texts: Iterable[str]) -> Mapping[str, str]:
    """For each text a file name, no two the same, whatever a file system makes of capital letters."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for text in texts:
        base = made = file_name(text)
        count = 2
        while made.lower() in taken:
            made = f"{base}-{count}"
            count += 1
        taken.add(made.lower())
        found[text] = made
    return found
