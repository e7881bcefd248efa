"""Names and texts of users in generated code: any text goes in, an identifier or a literal that cannot break out
comes out.
"""

from __future__ import annotations

import re
import unicodedata

# Of C, C++, Java and Kotlin together: a name is used in all of them.
_KEYWORDS = frozenset(
    """
    abstract alignas alignof and and_eq as asm assert auto bitand bitor bool boolean break byte case catch char char8_t
    char16_t char32_t class compl concept const consteval constexpr constinit const_cast continue co_await co_return
    co_yield decltype default delete do double dynamic_cast else enum explicit export extends extern false final
    finally float for friend fun goto if implements import in inline instanceof int interface is long mutable namespace
    native new noexcept not not_eq null nullptr object operator or or_eq package private protected public register
    reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast strictfp struct
    super switch synchronized template this thread_local throw throws transient true try typealias typedef typeid
    typename typeof union unsigned using val var virtual void volatile wchar_t when while xor xor_eq main
    """.split()  # noqa: SIM905 - a hundred quotes would hide the words
)
# What a file or a target of that name would take the place of: headers that compilers and TFLM look for by their bare
# names, CMake's own targets, and libraries that every program links.
_TAKEN = frozenset(
    """
    alloca arduino assert byteswap complex cpio ctype dirent dlfcn elf endian errno error execinfo fcntl features
    fenv float getopt glob grp iconv inttypes iso646 limits locale malloc math memory mqueue netdb paths poll
    pthread pwd random regex sched search semaphore setjmp signal spawn stdalign stdarg stdatomic stdbit stdbool
    stdckdint stddef stdint stdio stdlib stdnoreturn string strings syslog termios tgmath threads time uchar unistd
    utime values wchar wctype
    all clean depend doc edit_cache help install list_install_components package package_source preinstall
    rebuild_cache run_tests test zero_check
    c dl gcc m rt util
    """.split()  # noqa: SIM905
)
_LONGEST = 48


def identifier(text: str, *, fallback: str = "model") -> str:
    """Returns `text` as a lower-case ASCII identifier for names of functions, files and targets.

    "Größe (v2)" becomes "grosse_v2"; what is a keyword, or is taken, gets `fallback` in front: "math" "model_math".
    """
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_LONGEST].rstrip("_") or fallback
    if name[0].isdigit() or name in _KEYWORDS or name in _TAKEN:
        name = f"{fallback}_{name}"
    return name


def is_keyword(name: str) -> bool:
    """Whether C, C++, Java or Kotlin has `name` for itself."""
    return name in _KEYWORDS


def camel(name: str) -> str:
    """Returns an identifier in capitals: "keyword_spotting" becomes "KeywordSpotting"."""
    return "".join(part.capitalize() for part in name.split("_"))


def c_string(text: str) -> str:
    """Returns `text` as a C and C++ string literal of UTF-8 bytes, with no character that could end it or a line."""
    return '"' + "".join(_c_byte(byte) for byte in text.encode()) + '"'


def java_string(text: str) -> str:
    """Returns `text` as a string literal of Java and Kotlin, all ASCII; `$` is escaped, which Kotlin would replace."""
    units = text.encode("utf-16-be", "surrogatepass")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return '"' + "".join(_java_unit(code) for code in codes) + '"'


def comment(text: str) -> str:
    """Returns `text` as one line that may stand in any comment: no line ends, no `*/`, nothing but printable ASCII."""
    plain = "".join(c if 32 <= ord(c) < 127 else "?" for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/")


def _c_byte(byte: int) -> str:
    # Octal, since it ends after three digits where \x would swallow what follows; "?" could begin a trigraph.
    return chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"


def _java_unit(code: int) -> str:
    # Quotes, backslashes and line ends must not be \u escapes: Java reads those before it reads the literal.
    named = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\u000c", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    if code in named:
        return named[code]
    return chr(code) if 32 <= code < 127 and chr(code) != "$" else f"\\u{code:04x}"
