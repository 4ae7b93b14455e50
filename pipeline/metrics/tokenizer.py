"""The scorer's tokenizer: the tokens of coco-caption, without its Java.

coco-caption runs PTBTokenizer of Stanford CoreNLP 3.4.1 (`-preserveLines -lowerCase`) on
captions and drops punctuation. The rules here were derived from that program's output;
docs/decisions.md records on how many captions the two agree.
"""

import html
import unicodedata

import regex  # type: ignore[import-untyped]

NAME = "PTBTokenizer of Stanford CoreNLP 3.4.1, by rules of our own"

# Abbreviations keep their period, whatever their case.
_ABBREVIATIONS = """
adj adm adv al alex apr ariz assn assoc asst atty aug ave bhd bldg blvd brig bros calif capt cf
cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs ens esq est etc ext feb
fla fri ft ga gen gov govs hon inc ind insp invt jan jos jr jul jun kan kans ky lieut lt ltd maj
mar md mfg mich minn mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn
pfc ph ph.d plc pres prof profs pte pty pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc
sq sr st ste supt sys tel tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo
"""
# These keep it only when capitalized: in lower case they are words.
_CAPITALIZED = "Ala Ark Del Ill La Mass Miss Ore Pa Tex Wash"
# These keep it only before a number.
_BEFORE_NUMBER = "art ca fig figs no nos op pp prop"
# A single letter keeps it ("b."), unless one of these words starts a sentence after it.
_SENTENCE_STARTERS = """
a about according additionally after an as at but earlier he her here however if in it last many
more now once one other our she since so some such that the their then there these they this we
what when while yet you
"""


def _any_of(words: str) -> str:
    """Return a pattern that matches any of the words."""
    return "|".join(regex.escape(word) for word in words.split())


# In `regex`, unlike in `re`, `\w` matches the combining marks of words, as in Hindi.
_L = r"[^\W\d_]"  # a letter of any script
_W = r"[^\W_]"  # a letter or digit
_ENDING = rf"(?i:[sdm]|ll|re|ve)(?!{_L})"  # the ending of it's, he'd, I'm, ...

# The first alternative that matches wins. What matches none is dropped: white space, the
# punctuation on coco-caption's list and characters that PTBTokenizer does not support.
_TOKEN = regex.compile(
    rf"""
    \s+                                                   # only for speed, as the next
  | {_W}+(?=\s|$)                                         # most words
  | (?i:https?://|www\.)[^\s"<>|()]+[^\s"<>|().!?,;:'&-]  # a URL
  | {_W}[\w.+-]{{0,63}}@{_W}[\w-]*(?:\.{_W}[\w-]*)*        # an e-mail address (RFC 5321, 4.5.3.1)
  | [@\#]{_L}\w*
  | </?[a-zA-Z][^<>]*>                                    # a tag
  | -[lr][rcs]b-                                          # a bracket that is already a token
  | \^_\^ | [:;=]-?[)(\]dDpP](?!\w)                       # a smiley
  | [A-Za-z0-9]+(?:-[A-Za-z]+){{0,2}}                      # black-haired/white
      (?:/[A-Za-z0-9]+(?:-[A-Za-z]+){{0,2}}){{1,2}}
  | {_W}[\w.,]{{0,40}}(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|{_W}+(?:_{_W}+)*))+  # 3.5-mile-long
  | {_L}{_W}*(?:\.{_L}{_W}*)*\.(?:com|net|org|edu)(?:/[\w./-]*\w)?(?!\w)
  | (?:(?i:{_any_of(_ABBREVIATIONS)})|{_any_of(_CAPITALIZED)}|{_L}(?:\.{_L})+)\.(?!{_L})
  | {_L}\.(?!{_L}|\s+(?=[A-Z])(?i:{_any_of(_SENTENCE_STARTERS)})\s)
  | (?i:{_any_of(_BEFORE_NUMBER)})\.(?=\s?\d)
  | {_L}{_W}*(?:[.!?]{_L}{_W}*)+                          # dog.The: no space, no new sentence
  | [A-Z]+(?:&[A-Z]+)+                                    # AT&T
  | [A-Za-z]+(?=[nN]['`][tT]) | (?i:n['`]t)(?!{_L})       # do | n't
  | (?i:'t(?=(?:is|was)\b)|more(?='n\b))                  # 't | is
  | (?<!')'(?i:n'|n(?!{_L})|em|till?|cause|\d0s) | '{_ENDING} | '\d\d(?=\s|$)
  | [A-HJ-XZndlo]'{_L}{{2,}}(?:-{_W}+)* | (?i:ol|dunkin)'(?!{_L})  # O'Brien, o'clock
  | (?!.'{_ENDING})[dDlLjJyY]'(?={_L})                    # y' | all
  | {_L}+[aeiouyAEIOUY]'(?!{_ENDING})[aeiouA-Z]{_L}*      # ma'am
  | (?:(?<!-)[-+])?\d*(?:[.:,]\d+)+ | (?<!-)[-+]\d+
  | {_W}+(?:[-_]{_W}+)*(?:\.(?=[,:;]))?                   # its period stays before a comma
  | [?!]{{2,}} | \*+ | _+ | \#+ | [A-Z]*\$
  | [](){{}}[%&+/<=>@\\^|~\u00a1-\u00bf\u00d7\u00f7\u2100-\u2bff]
    """,
    regex.VERBOSE,
)
# Python refuses to read numbers of thousands of digits; no character has more than seven.
_LONG_REFERENCE = regex.compile(r"&#([0-9]{8,});?")
# The normalization takes time in the square of the number of marks on one letter. Beyond 30 they
# are dropped: UAX #15, "Stream-Safe Text Format", allows no more.
_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")
# Quotes, dashes and signs that PTBTokenizer writes in ASCII, or separates from their neighbours.
_SIGNS = str.maketrans(
    dict.fromkeys("\u201c\u201d\u201e«»", '"')
    | dict.fromkeys("\u2012\u2013\u2014\u2015", " -- ")
    | dict.fromkeys("\u2010\u2011", "-")
    | {sign: f" {sign} " for sign in "¹²³"}
    | {"\u2019": "'", "\u2018": "`", "…": "...", "½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 "}
    | {"€": "$", "£": "#", "¢": " cents ", "\u00ad": ""}
)
_BRACKETS = str.maketrans(
    {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
)
_TWO_WORDS = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}


def _shorten_reference(match: "regex.Match[str]") -> str:
    """Return a numeric character reference without leading zeros; U+FFFD if it is no character."""
    number = match[1].lstrip("0") or "0"
    return "\ufffd" if len(number) > 7 else f"&#{number};"  # noqa: PLR2004  (digits)


def tokenize(caption: str) -> list[str]:
    """Return a caption's tokens, in lower case and without punctuation.

    Brackets stay, as `-lrb-` and the like: coco-caption lower-cases their names before it looks
    for them in upper case, and so never drops one.
    """
    if "&" in caption:
        caption = html.unescape(_LONG_REFERENCE.sub(_shorten_reference, caption))
    if not caption.isascii():
        caption = unicodedata.normalize("NFC", _MARKS.sub(r"\1", caption)).translate(_SIGNS)
    text = " ".join(_TOKEN.findall(caption))
    tokens = text.translate(_BRACKETS).lower().split()
    if _TWO_WORDS.keys().isdisjoint(tokens):
        return tokens
    return [part for token in tokens for part in _TWO_WORDS.get(token, (token,))]
