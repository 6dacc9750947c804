"""The English words that `spoken_numbers` knows: numbers, and what tells a door from a time, a price or a quantity."""


def words_of(text: str) -> frozenset[str]:
    """Return the words of the text as a set."""
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

ZEROES = words_of("oh o")
DANGLING = words_of("and double triple")
"""They never end a number."""

POINTERS = words_of("this that another which each every any last other next no")
"""In "this one four twelve" the "one" after them is no digit."""

DOORS = words_of("room suite apartment unit villa cabin cottage bungalow rm apt")
DOORS_PLURAL = words_of("rooms suites apartments units villas cabins rms")

TIME_LEADS = words_of(
    "at by until till til around about before after since past tomorrow today tonight between noon scheduled"
)
QUARTERS = frozenset({15, 30, 45})
PLACES = words_of("over up down here back i'm we're they're s")
"""After these, "at four fifteen" is a place; in "checkout is at four fifteen" it is a time."""

EVENTS = words_of(
    "meeting meetings checkout checkin breakfast brunch lunch dinner reservation reservations reserved booked booking"
    " scheduled schedule starts starting begins opens opening closes closing wake pickup shuttle taxi cab flight train"
    " arrives arrival arriving departs departure leaves leaving shift appointment tour ceremony wedding conference"
    " seminar concert show event training session class due drill turndown table party"
)
"""What has a time: after them "for 4.30" is no door."""
EVENT_LEADS = words_of("for from to is it's its was")
MEASURES = words_of("cost costs price total bill temperature charge charged charges pay paid worth rate tip deposit")
"""What has an amount: after them "4.30" is none either."""

CLOCK = words_of("am pm a.m p.m a.m. p.m. a. p. o'clock oclock sharp")
CURRENCY = frozenset("$€£¥")
UNITS = words_of(
    "dollar dollars euro euros buck bucks cent cents pound pounds quid percent per degree degrees second seconds minute"
    " minutes min mins hour hours day days week weeks month months year years mile miles meter meters metre metres foot"
    " feet inch inches ounce ounces oz watt watts volt volts amp amps liter liters litre litres gallon gallons kilo"
    " kilos packs people persons guests pax of times fever"
)
MONTHS = words_of(
    "january february march april june july august september october november december"
    " year circa version channel floor level"
)
"""What a number after them counts is no door."""
TESTING = words_of("testing test check mic count")

HOMOPHONES = {"for": "4", "to": "2", "too": "2"}
VERBS = words_of("needs is has wants needed requests requires called reports")

ORDINALS = words_of("first second third fourth fifth sixth seventh eighth ninth")

FUNCTION = words_of(
    "a an and again are asap at by can for from has have he i if in is it just need needs no not now on or over please"
    " reported reports requesting requests requires said says she so that the then they to wants was we were will with"
    " would you your"
)

_NOT_PLURAL = FUNCTION | words_of(
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
