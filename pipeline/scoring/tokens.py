"""The scorer's tokens: those of coco-caption, without its Java.

coco-caption runs Stanford's PTB tokenizer over lower-cased captions and drops
punctuation; NLTK's Treebank tokenizer agrees with it on all 5,000 references of
Flickr8k's test split.
"""

from nltk.tokenize import TreebankWordTokenizer

# The tokens that coco-caption's PTBTokenizer drops.
PUNCTUATION = frozenset(
    "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split()  # noqa: SIM905  (legible)
)
_TREEBANK = TreebankWordTokenizer()


def tokenize(caption: str) -> list[str]:
    """Return a caption's tokens, in lower case and without punctuation."""
    tokens = _TREEBANK.tokenize(caption.lower(), convert_parentheses=True)
    return [token for token in tokens if token.upper() not in PUNCTUATION]
