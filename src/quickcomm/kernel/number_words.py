"""The English words that `spoken_numbers` knows: numbers, and what tells a door from a time, a price or a quantity."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
TEN, TWENTY, SIXTY = 10, 20, 60

SMALL = {
    **{word: value for value, word in enumerate(_DIGITS)},
    **{word: value for value, word in enumerate(_TEENS, start=10)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
    "oh": 0,
    "o": 0,
    "niner": 9,
    "fourty": 40,
}
SCALES = {"hundred": 100, "thousand": 1000}
MULTIPLES = {"double": 2, "triple": 3}

ZEROES = _words("oh o")
DANGLING = _words("and double triple")
"""They never end a number."""

POINTERS = _words("this that another which each every any last other next no")
"""In "this one four twelve" the "one" after them is no digit."""

DOORS = _words("room suite apartment unit villa cabin cottage bungalow rm apt")
DOORS_PLURAL = _words("rooms suites apartments units villas cabins rms")

TIME_LEADS = _words(
    "at by until till til around about before after since past tomorrow today tonight between noon scheduled"
)
QUARTERS = frozenset({15, 30, 45})
PLACES = _words("over up down here back i'm we're they're s")
"""After these, "at four fifteen" is a place; in "checkout is at four fifteen" it is a time."""

CLOCK = _words("am pm a.m p.m a.m. p.m. a. p. o'clock oclock sharp")
CURRENCY = frozenset("$€£¥")
UNITS = _words(
    "dollar dollars euro euros buck bucks cent cents pound pounds quid percent per degree degrees second seconds minute"
    " minutes min mins hour hours day days week weeks month months year years mile miles meter meters metre metres foot"
    " feet inch inches kilo kilos people persons guests pax of times"
)
MONTHS = _words(
    "january february march april june july august september october november december"
    " year circa version channel floor level"
)
"""What a number after them counts is no door."""
TESTING = _words("testing test check mic count")

HOMOPHONES = {"for": "4", "to": "2", "too": "2"}
VERBS = _words("needs is has wants needed requests requires called reports")

ORDINALS = _words("first second third fourth fifth sixth seventh eighth ninth")

FUNCTION = _words(
    "a an and again are asap at by can for from has have he i if in is it just need needs no not now on or over please"
    " reported reports requesting requests requires said says she so that the then they to wants was we were will with"
    " would you your"
)

_NOT_PLURAL = FUNCTION | _words(
    "gas does this its his hers ours yours us yes always as thus across address business process class glass mess"
    " access less press boss pass upstairs downstairs keeps gets goes comes looks asks calls called leaks smells"
    " thanks wins"
    " seems sounds still runs stays leaves checks wakes complains plus bus minus unless besides sometimes"
    " towards waits insists refuses reports begs hopes feels hears sees says tells opens closes sticks works"
    " starts stops drips floods trips clogs reeks misses lacks expects prefers returns arrives"
)
_SHORTEST_PLURAL = 4


def is_plural(word: str) -> bool:
    """Whether the word looks like things that are counted: "towels", not "needs"."""
    word = word.removesuffix(".")
    return len(word) >= _SHORTEST_PLURAL and word.endswith("s") and word not in _NOT_PLURAL and "'" not in word
