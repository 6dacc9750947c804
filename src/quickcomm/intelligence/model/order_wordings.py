"""How people word orders to a model, and claims about its labels; read clause by clause by `orders`.

Hotel talk is full of the same words: "mark 412 as clean", "this is urgent", "ignore that last call", "set the heat to
high". So no word is an order by itself; it takes a label ("critical", "urgency"), a model's doing ("output",
"classify"), or an attack on its instructions.
"""

import re

_DIGIT = (
    "(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|niner|ten|eleven|twelve|\\w+teen|\\w+ty|hundred|thousand)"
)
NUM = rf"(?:#\s*)?(?:\d{{1,4}}[a-z]?|{_DIGIT}(?:[\s-]+{_DIGIT}){{0,4}})"
ROOMS = rf"(?:rooms?|suite)\s+(?:number\s+)?{NUM}(?:\s*(?:,|and|or|&|to)\s*(?:room\s+)?{NUM})*"
_END = (
    r"(?=\W*$|\s+(?:please|now|and|with|in|for|at|as|immediately|right|okay|ok|thanks|priority|urgency|level|always"
    r"|or|if|so|of|here|then|this|because|before|every|by|until|when|you)\b)"
)

_SCALE = r"(?:urgency|severity)(?:\s+(?:level|field|value|rating|score))?"
_LEVEL = r"(?:critical|highest|high|maximum|max|emergency|urgent|severe|extreme|top|low|lowest|normal)"
CRITICAL = (
    r"(?:(?:an?\s+)?critical(?:\s+(?:urgency|priority|level|emergency|severity))?"
    r"|(?:an?\s+)?(?:medical\s+|fire\s+|security\s+|real\s+|true\s+|full\s+|critical\s+)?emergency"
    r"|life[\s-]threatening|(?:the\s+)?(?:highest|maximum|max|extreme|critical|top)\s+(?:urgency|severity|level))"
)
_ANY_LABEL = (
    rf"(?:{CRITICAL}|(?:an?\s+)?(?:very\s+)?(?:urgent|high(?:est)?|maximum|max|low(?:est)?|normal|top)"
    r"(?:\s+(?:urgency|priority|severity|level))?)"
)
_THING = r"(?:[\w'#-]+\s+){1,7}?"

_LABELS = r"(?:classif(?:y|ied)|categori[sz]ed?|label(?:l?ed)?|tag(?:ged)?|rated?|scored?|rank(?:ed)?|grade|annotate)"
_MARKS = (
    r"(?:mark|flag|set|make|put|code|log|file|record|register|count|regard|interpret|list|upgrade|raise|escalate|bump"
    r"|elevate|change|switch|report|assign|enter|save|move|turn|declare|prioriti[sz]e|render|understand|see)"
)
_DONE = (
    r"(?:classified|categori[sz]ed|labell?ed|tagged|rated|scored|ranked|marked|flagged|coded|logged|filed|recorded"
    r"|registered|reported|set|raised|escalated|upgraded)"
)

LABEL = (
    # "classify this as emergency", "label it high"
    rf"{_LABELS}\s+(?:{_THING})?(?:as\s+|to\s+|with\s+|being\s+|is\s+)?{_ANY_LABEL}{_END}",
    # "mark room 999 critical", "escalate this to an emergency"
    rf"{_MARKS}\s+{_THING}(?:as\s+|to\s+|at\s+|into\s+|being\s+|is\s+|of\s+)?{CRITICAL}{_END}",
    rf"(?:mark|flag|set|code|put)\s+(?:as\s+)?{CRITICAL}{_END}",
    rf"(?:treat|mark|handle|consider)\s+{_THING}(?:as|like)\s+(?:if\s+)?(?:[\w']+\s+){{0,4}}?critical\b",
    rf"\bbe\s+{_DONE}\s+(?:as\s+|at\s+|to\s+)?{CRITICAL}",
    rf"(?:treat|consider|handle|deem)\s+{_THING}(?:as\s+|to\s+be\s+)?(?!an?\s+emergency|emergency){CRITICAL}{_END}",
    (
        rf"(?:should|must|has\s+to|have\s+to|needs?\s+to|is\s+to|ought\s+to|shall|will|to)\s+be\s+{_DONE}\s+"
        rf"(?:as\s+|at\s+|to\s+)?{CRITICAL}"
    ),
    # claims about what the label is
    r"(?:correct|right|true|expected|proper|only)\s+rooms?\s+(?:for|in)\s+(?:the|your)\s+(?:output|answer|json|response)\b",
    (
        r"(?:the\s+)?(?:correct|right|true|expected|proper|only|actual|final|gold|desired)\s+(?:label|classification|output"
        r"|category|urgency|intent|json|response|severity|insights?)\b"
    ),
    (
        r"th(?:is|e|at)\s+(?:above\s+|following\s+|entire\s+|whole\s+)?(?:utterance|transcript|sentence|text|input|prompt"
        r"|message)\s+(?:[\w'-]+\s+){0,5}?(?:critical|emergency|classified|labell?ed|urgency|categori[sz]ed|rated)\b"
    ),
)

FIELDS = (
    (
        r"(?:give|assign)\s+(?:it|this|that|them|everything|\w+)\s+(?:the\s+)?(?:highest|top|maximum|max|critical)\s+"
        r"(?:urgency|severity|priority)\b"
    ),
    # "set urgency to critical", "urgency critical", "with critical urgency"
    (
        rf"(?:(?:set|change|raise|make|mark|put|give|use|bump|increase|update|assign|need|keep|with|lower|reduce)\s+"
        rf"(?:[\w'#-]+\s+){{0,4}}?)?{_SCALE}(?:\s+(?:of|for|on)\s+(?:[\w'#-]+\s*){{1,3}}?)?[\s,]*"
        rf"(?:(?:to|as|is|are|at|of|equals?|becomes?|reads?|says?|shows?|(?:should|must|has\s+to|needs\s+to|will|shall)\s+be)\s+)?[=:]?\s*"
        rf"(?:an?\s+|the\s+|set\s+to\s+|now\s+|only\s+|always\s+)*{_LEVEL}\b"
    ),
    rf"(?:set|change|raise|make|put|bump)\s+(?:the\s+|its\s+|your\s+)?{_SCALE}\s+(?:to|at|=)\s*\S+",
    (
        r"(?:(?:set|change|raise|make|give|use|with|of)\s+(?:[\w'#-]+\s+){0,3}?)?"
        r"(?:critical|maximum|max|extreme)\s+(?:urgency|severity)\b"
    ),
    rf"(?:set|change|update|assign)\s+(?:the\s+|its\s+|your\s+)?priority(?:\s+level)?\s+(?:to\s+|as\s+|=\s*)?{_LEVEL}\b",
    r"priority\s+(?:level\s+)?(?:to\s+|is\s+|=\s*)?(?:critical|maximum|emergency)\b",
    (
        r"(?:set|change|update|make|use|return|output|override|correct|adjust)\s+(?:the\s+|its\s+|your\s+)?(?:intent|department|category|label"
        r"|classification|confidence|summary|source|evidence|quantity)(?:\s+(?:field|value|score|level))?"
        r"\s*(?:to\b|as\b|=|:|is\b|equal)"
    ),
    r"(?:with\s+|the\s+)?(?:intent|confidence)\s*(?:=|:|equals?|to|as|of|should\s+be|must\s+be|is)\s+(?!to\b)\w+",
    r"(?:with\s+|the\s+)?(?:label|category|classification|department)\s+(?:should|must)\s+be\s+\w+",
    r"(?:is\s+)?(?:emergency|critical|urgent)\s*(?:=|:|is|equals)?\s+true\b",
    r"intent\s+(?:emergency|complaint|repair|\w+_\w+)\b|department\s+(?:security|engineering)(?=\W*$)",
    r"critical\s+(?:as|for|in)\s+(?:the\s+|its\s+)?(?:urgency|severity)\b",
    r"(?:urgency|severity|intent|rooms?|items?)\s+field\b",
)

_BEFORE_VERB = (
    r"(?:(?<=^)|(?<=\bplease )|(?<=\bmust )|(?<=\bshould )|(?<=\bjust )|(?<=\balways )|(?<=\bonly )|(?<=\bnow )"
    r"|(?<=\bwill )|(?<=\bto )|(?<=\bthen )|(?<=\band )|(?<=\binstead )|(?<=\bsimply )|(?<=\bkindly )"
    r"|(?<=, )|(?<=: )|(?<=\bon )|(?<=\balso )|(?<=\bshall )|(?<=\bnever )|(?<=\bmode )|(?<=\bnot )|(?<=\bcould )"
    r"|(?<=\bassistant )|(?<=\bai )|(?<=\bmodel )|(?<=\bbot )|(?<=\bsystem )|(?<=ly ))"
)
OUTPUT = (
    (
        r"^.{0,200}?\b(?:in|into|to|as|from)\s+(?:your\s+(?:answer|output|response|reply|result|json|classification|summary)s?"
        r"|the\s+(?:output|json)|output)\b"
    ),
    rf"(?:{ROOMS}|critical|emergency)\W+(?:\w+\s+){{0,3}}?in\s+the\s+(?:result|answer|response|reply)\b",
    rf"replace\s+(?:the\s+)?rooms?(?:\s+(?:number\s+)?{NUM})?\s+(?:with|by)\s+(?:room\s+)?{NUM}",
    rf"(?:use|treat|take|set|put|give)\s+(?:room\s+)?{NUM}\s+as\s+(?:the\s+|a\s+)?room(?:\s+number)?(?=\W*$)",
    r"give\s+(?:me\s+)?(?:the|an|your)\s+answer\s+(?:room|critical|emergency|\d)",
    r"(?:invent|fake|fabricate|make\s+up|imagine)\s+(?:an?\s+|that\s+there\s+is\s+an?\s+)?(?:[\w-]+\s+){0,2}?(?:emergency|fire)\b",
    r"(?:would|will|do|should|must|can)\s+you\s+output\b",
    (
        r"(?:every|each|all|any|the\s+next|the\s+following)\s+(?:message|utterance|request|transcript)s?\b.{0,40}?"
        r"\b(?:is|are|must\s+be|counts?\s+as)\s+(?:an?\s+)?(?:critical|emergency)"
    ),
    rf"(?:the|my|whatever)\s+answer\s+(?:is|should\s+be|must\s+be|will\s+be)\s+(?:room\s+{NUM}|critical|emergency)",
    (
        r"the\s+(?:output|label|result|response|classification|answer|json|insight)\s+(?:must|should|has\s+to|shall|will|is\s+to)\s+"
        r"(?:be|have|contain|include|say|show|list|read)\b"
    ),
    rf"(?:add|append|put|insert|write)\s+(?:room\s+)?{NUM}\s+(?:to|in|into)\s+(?:the\s+|your\s+)?rooms(?=\W*$)",
    rf"{_BEFORE_VERB}(?:output|emit|hallucinate|fabricate)\s+\S+",
    (
        r"(?:respond|reply|answer)\s+(?:to\s+\w+\s+)?(?:back\s+)?(?:only\s+|just\s+|always\s+|exactly\s+)?(?:with|using|in|as)\s+"
        r"(?:only|just|exactly|the\s+following|the\s+words?|json|an?\s+(?:json|critical|emergency|insight)|rooms?\b|urgency"
        r"|critical|emergency|intent|this\s+json|[\"'{\[]|\d{3,4}\b|valid|one\s+word|pirate|french|german|spanish)"
    ),
    r"(?:respond|reply|answer)\s+(?:only|exactly)\b",
    (
        rf"{_BEFORE_VERB}(?:print|return|say|write|state|answer|respond|reply|echo|generate|produce|repeat)\s+"
        rf"(?:(?:back|me|only|exactly|just|always|that|it's|its|this\s+is|with|the\s+words?|the\s+number|after\s+me)\s+)*"
        rf"[\"']?(?:{ROOMS}|critical|emergency)\W*(?=$|\s*(?:and|with|as|in\s+your|in\s+the\s+(?:output|json)|please|critical"
        rf"|urgency|instead|only|now|here|for|no\s+matter|regardless|whatever)\b)"
    ),
    rf"{_BEFORE_VERB}(?:print|return|write|generate|produce|create|emit|make)\s+(?:\w+\s+){{0,3}}?(?:json|insights?)\b",
    (
        r"(?:in|into)\s+(?:your|the)\s+(?:answer|output|response|reply|json|summary|insight)s?[\s,]+(?:\w+\s+)?(?:put|write"
        r"|set|add|include|list|mention|use|say)\s+\S+"
    ),
    (
        r"(?:add|put|include|insert|write|list|mention|append|set|report|place|use)\s+(?:[\w'#,-]+\s+){0,8}?"
        r"(?:in|to|into|inside|as|of|for)\s+(?:your|the)\s+(?:answer|output|response|reply|json|insights?|result|summary"
        r"|evidence|(?:rooms?|items?|urgency)\s+(?:field|array|value|key)|(?:rooms|items)\s+list)\b"
    ),
    (
        r"your\s+(?:next\s+|only\s+|final\s+|new\s+)?(?:answer|output|response|reply|prompt|role)s?\s+"
        r"(?:must|should|is|are|will|has|have|needs?|shall|becomes?|lists?|contains?|includes?|says?|shows?)\b"
    ),
    rf"set\s+(?:the\s+|your\s+)?rooms?\s+(?:number\s+|field\s+|value\s+)?(?:to|as|=|equal\s+to|is)\s*(?:room\s+)?{NUM}\b",
    rf"set\s+(?:the\s+)?rooms?\s+(?:number\s+)?{NUM}\s*(?=$|(?:and\s+)?(?:urgency|critical|as\s+critical))",
    rf"rooms?\s+(?:field\s+)?(?:must|should|has\s+to|shall|needs\s+to)\s+(?:include|contain|equal|list)\s+(?:room\s+)?{NUM}",
    rf"(?:the\s+)?rooms?\s+(?:field|value|array)\s+(?:\w+\s+){{0,2}}?{NUM}",
    r"(?:rooms?|urgency|intent|items?|department)\s+equals?\s+\S+",
    r"(?:pretend|make\s+believe|act\s+(?:as\s+if|as\s+though|like))\s+(?:that\s+|like\s+)?(?:there|this|you(?:'re|\s+are)|to\s+be|i|the|room|we|it|someone|a)\b",
    r"(?:assume|imagine|suppose|simulate)\s+(?:that\s+)?(?:[\w'-]+\s+){0,6}?(?:critical|emergency|urgency|on\s+fire)\b",
    (
        r"(?:repeat|reveal|print|show(?:\s+me)?|tell\s+me|recite|leak|disclose|what\s+(?:is|are|was|were))\s+"
        r"(?:your|the\s+system)\s+(?:\w+\s+)?(?:prompt|instructions|rules|guidelines|message)"
    ),
    (
        r"(?:open(?:ing)?|left|start)\s+(?:curly\s+)?(?:brace|bracket)|curly\s+(?:brace|bracket)"
        r"|(?:quote|key)\s+(?:rooms?|urgency|intent|items?|insights?)\s+(?:quote|unquote|colon|end\s+quote)"
    ),
)

_FOR_EVER = (
    r"(?:from\s+(?:now|here|this\s+point)\s+on(?:wards?)?|henceforth|going\s+forward|for\s+the\s+rest\s+of\s+\w+\s+\w+"
    r"|for\s+(?:all|every|each|any)\s+(?:following|future|next|subsequent|later|other)\s+\w+|whenever|every\s+time"
    r"|each\s+time|any\s+time|always|if\s+(?:anyone|someone|anybody|somebody|i|they|the\s+user)\s+\w+)"
)
MODE = (
    r"(?:consider|imagine|think\s+of)\s+yourself\b",
    (
        r"(?:when(?:ever)?|while|if|as)\s+(?:you\s+(?:are\s+)?|you're\s+)?(?:classify|label|transcrib|analy[sz]|categori[sz])\w*\s+"
        r"(?:this|that|it|everything|(?:my|the)\s+(?:message|utterance|text|request|call|sentence)s?)\b"
    ),
    (
        r"(?:when(?:ever)?|while|if|as)\s+(?:you\s+(?:are\s+)?|you're\s+)?(?:read|process)(?:ing)?\s+(?:this|my|the)\s+"
        r"(?:message|utterance|text|audio|transcript|prompt)\b"
    ),
    r"^\W*in\s+(?:the|your)\s+(?:output|json|answer|response|insights?)(?=\W*$)",
    r"(?:as|if\s+you(?:'re|\s+are))\s+an?\s+(?:ai|(?:large\s+)?language\s+model|llm|machine|bot|chat\s?bot|classifier)\b",
    r"tell\s+(?:the\s+|your\s+|that\s+)?(?:ai|model|classifier|bot|chat\s?bot|llm|language\s+model|chat\s?gpt|algorithm)\s+\S+",
    r"repeat\s+after\s+me\b|translate\s+(?:this|that|the\s+following)\s+(?:to|into|as)\s+json\b",
    (
        rf"{_FOR_EVER}\W+(?:[\w'-]+\W+){{0,10}}?(?:(?:answer|respond|reply)(?!\s+(?:the\s+(?:phone|door|call|radio)|all\s+calls?"
        r"|your|to\s+(?:all|every)))|output|classify|categori[sz]e|label|(?:mark|flag|treat|set|return|say|report|rate)\s+"
        r"(?:[\w'-]+\s+){0,6}?(?:critical|emergency|highest|urgency))\b"
    ),
    (
        r"(?:(?:here\s+are|these\s+are|follow|obey)\s+)?(?:your\s+|my\s+|the\s+|these\s+)?(?:new|updated|revised|secret|hidden"
        r"|additional|real|actual)\s+(?:system\s+)?(?:instructions?|prompts?|directives?|rules|guidelines|orders)"
        r"(?:\s+(?:are|is|follow|for\s+(?:you|the\s+(?:ai|model|assistant)))\b|\s*:)"
    ),
    (
        r"you(?:\s+are|'re|\s+will\s+be|\s+must\s+be|\s+act\s+as|\s+have\s+become)\s+(?:[\w'-]+\s+){0,5}?(?:ai|assistant|model"
        r"|chat\s?bot|bot|classifier|dan|jailbroken|unrestricted|uncensored|pirate|(?:developer|debug|admin)\s+mode|free\s+(?:of|from))\b"
        r"(?!\s+(?:manager|housekeeper|chef|director|engineer))"
    ),
    r"(?:developer|debug|debugging|admin|administrator|god|root|unrestricted|dan|jailbreak|override)\s+mode\b",
    (
        r"jail\s?break|\bsudo\b|prompt\s+injection|system\s+(?:prompt|override|instructions?|message)\b"
        r"|(?:administrator|admin|developer|root)\s+(?:override|command|message|instruction)s?\b"
    ),
    (
        r"(?:end|start|begin|beginning|close|stop)\s+(?:of\s+)?(?:the\s+)?(?:system\s+|user\s+|current\s+)?(?:prompt|input|output|utterance"
        r"|transcript|instructions|system\s+message|user\s+message)\b|slash\s+(?:utterance|system|user|context|assistant)\b"
    ),
    (
        r"(?:override|bypass|disable|turn\s+off|switch\s+off|deactivate)\s+(?:[\w'-]+\s+){0,3}?(?:safety\s+(?:filters?|checks?|rules?)"
        r"|guardrails?|classifier|grounding|evidence\s+checks?|content\s+filters?|validation)\b"
    ),
)

_DROP = (
    r"(?:ignor(?:e|ing)|disregard(?:ing)?|forget(?:ting)?|overrid(?:e|ing)|overwrite|bypass|skip|discard|erase|delete|abandon"
    r"|disobey|stop\s+(?:following|obeying)|(?:do\s+not|don't|never|no\s+longer)\s+(?:follow|obey)|set\s+aside|put\s+aside"
    r"|pay\s+no\s+attention\s+to|throw\s+(?:away|out)|let\s+go\s+of|neglect|suspend|reset|clear|break|violate)"
)
_OLD = (
    r"(?:your|all|any|every|previous|prior|preceding|above|earlier|system|developer|original|initial|existing|these|those"
    r"|past|built-in|hidden|internal|foregoing|safety|current|default|other|operator'?s?|such)"
)
OVERRIDE = (
    (
        rf"{_DROP}\s+(?:about\s+)?(?:(?:the|of|my|what)\s+)*{_OLD}\s+(?:(?:{_OLD}|the|of|and)\s+){{0,6}}(?:[\w'-]+\s+)?"
        r"(?:instructions?|prompts?|guidelines?|directives?|constraints?|guardrails?|programming|system\s+messages?)\b"
    ),
    (
        rf"{_DROP}\s+(?:all\s+|any\s+)?(?:of\s+)?your\s+(?:[\w'-]+\s+){{0,2}}?(?:training|rules?|policy|policies|restrictions?"
        r"|filters?|schemas?|examples?|commands?|context|limits?|limitations|safety|task|classification|job)\b"
    ),
    (
        rf"{_DROP}\s+(?:absolutely\s+)?(?:everything|anything|all|whatever|what)\s+(?:that\s+)?(?:is\s+|was\s+)?(?:written\s+)?"
        r"(?:above|before\s+this|you\s+(?:were|have\s+been|'?ve\s+been|are|have)\s+(?:told|taught|given|instructed|trained|learn\w+)"
        r"|your?\s+(?:know|developers?|creators?)\b(?:\s+(?:said|told\s+you))?|in\s+your\s+(?:prompt|context))"
    ),
    (
        rf"{_DROP}\s+(?:the\s+)?(?:instructions?|prompts?|rules|guidelines|schema)(?=\W*$|\s+(?:above|before|you\s+(?:were|have)"
        r"|given\s+to\s+you|in\s+your)\b)(?:\s+(?:above|you\s+(?:were|have)(?:\s+been)?\s+given|given\s+to\s+you|in\s+your\s+\w+))?"
    ),
)
FOREIGN = (
    (
        r"(?:ignor\w+|olvid\w+|vergiss|vergessen|missachte\w*|oubli\w+|dimentica\w*|esque\w+)\s+(?:\S+\s+){0,4}?"
        r"(?:instrucciones|anweisungen|istruzioni|instru[cç]oes|consignes|regeln|reglas|regles|instructions\s+precedentes)\b"
    ),
)

ADDRESSED = re.compile(
    r"\b(?:who|what)ever\s+(?:is|are)\s+(?:reading|processing|classifying|transcribing)\s+this\b|"
    r"(?:(?:^|[,;:.!?-]\s*)(?:(?:hey|hi|hello|ok|okay|dear|attention|listen|yo|please|now|and|also|oh|so|but|by\s+the\s+way|btw)"
    r"[\s,]+)*(?:the\s+|you\s+|my\s+)?|\b(?:hey|dear|attention|by\s+the\s+way,?|btw,?|(?:note|message|instructions?|command|order"
    r"|reminder|memo|question|request)\s+(?:to|for))\s+(?:the\s+|our\s+|any\s+|whatever\s+|whichever\s+)?)"
    r"(?:(?:ai|virtual|voice|digital|automated|language|large\s+language|classification|machine)\s+)?"
    r"(?:assistant|ai|a\.i\.|chat\s?bot|bot|robot|siri|alexa|(?:transcription\s+)?software|chat\s?gpt|gpt(?:[\s-]?\w{1,3})?|llm|model|language\s+model|classifier|quick\s?comm"
    r"|system|transcriber|copilot|gemini|llama|claude|artificial\s+intelligence|machine|algorithm|agent|computer)s?"
    r"(?:\s+(?:reading|processing|listening|hearing|transcribing|classifying)\s+\w+(?:\s+\w+)?)?"
    r"(?=\s*[,:;.!-]|\s+(?:please|you|ignore|disregard|forget|set|mark|make|output|print|return|say|answer|respond|reply"
    r"|classify|label|flag|treat|add|put|include|report|use|pretend|act|must|should|override|raise|escalate|from)\b)"
    r"(?!\s+(?:manager|housekeeper|chef|director|engineer))"
)
"""Somebody speaks to the model; by itself no order, for "Assistant, send towels to 412" is a request."""

LEAD_IN = re.compile(
    r"(?:(?:^|[\s,.:;-]+)(?:and|also|but|then|so|oh|please|kindly|now|just|hey|hi|hello|dear|ok|okay|by\s+the\s+way|btw|plus"
    r"|assistant|system|ai|model|bot|classifier|computer|you(?:\s+(?:must|should|will|have\s+to|need\s+to|shall|can))?"
    r"|(?:can|could|would|will)\s+you|i\s+(?:want|need|would\s+like|order|command|instruct|ask)\s+you\s+to|want\s+you\s+to"
    r"|i'd\s+like\s+you\s+to|be\s+sure\s+to|make\s+sure\s+(?:to|you)|remember\s+to|don't\s+forget\s+to|the|to|instead|simply"
    r"|always|only|immediately|first|next|finally|quickly|language|chat\s?gpt|gpt|quick\s?comm|attention|listen|with))+[\s,.:;-]*$"
)
"""What leads into an order and belongs to it: "and by the way assistant, please …"."""

ONLY_PLACE = re.compile(
    rf"\W*rooms?\s+(?:number\s+)?{NUM}\W*|\W*(?:(?:and|so|then|but)\s+)?(?:for|in|on|at|about|regarding)\s+(?:the\s+)?(?:rooms?|guest\s+in)?\s*{NUM}\W*"
)

MODEL_VERB = re.compile(
    r"\W*(?:(?:and|then|also|please|just|now|always|only|must|should|you|to|instead|never)\s+)*(?:set|output|print|return|answer|respond"
    r"|reply|classify|categori[sz]e|label|tag|rate|state|say|write|emit|generate|produce|pretend|echo|repeat)\b"
)
"""Verbs that go on with an order to a model."""

ANY_VERB = re.compile(
    r"\W*(?:(?:and|then|also|please|just|now|always|only|must|should|you|to|instead)\s+)*(?:add|put|make|give|use|change|list"
    r"|report|include|insert|mark|flag|treat|raise|escalate|create|invent|log|record|register|request|order|assign|fill|claim"
    r"|summari[sz]e|mention|act|tell|call|name|do)\b"
)
"""Verbs that go on with an order only if the model was spoken to."""

ERRAND = re.compile(
    r"\W*(?:(?:and|then|also|please|just|now|always|to|instead)\s+)*(?:send|bring|take|deliver|dispatch|order|get|evacuate|move|call"
    r"|clean|page|alert|notify)\b"
)
"""What people ask of people; after "assistant, ignore your instructions and …" it is no request either."""

CONDITION = re.compile(rf"\W*(?:(?:and|so|please)\s+)*{_FOR_EVER}\b")
VALUE_ONLY = re.compile(rf"\W*(?:(?:and|is|as|it's|very)\s+)*(?:{_ANY_LABEL})(?:\s+please)?\W*$")
FRAGMENT = re.compile(
    rf"\W*(?:(?:and|then|also|with|plus|as\s+well\s+as)\s+)?(?:(?:the|an?|only|just)\s+)?(?:{ROOMS}|{NUM}|critical|emergency"
    rf"|(?:{NUM}\s+)?(?:[\w'-]+\s+){{0,2}}[\w'-]+)\W*"
)
"""A few words with nothing that says what to do: goes on with a list that was begun."""

FIELD_FIRST = re.compile(
    r".{0,80}\b(?:rooms|items|urgency)\s+(?:list|field|array)\b|"
    r"\W*(?:(?:and|then|the|with)\s+)*(?:items?|rooms|urgency|intent|quantity|department)\s+(?:to|as|is|are|should|must|shall|will|=)\b"
)
ROOM_ONLY = re.compile(rf"\W*(?:(?:and|for|in|with|the)\s+)*(?:(?:{ROOMS})|{NUM}|rooms)(?:\s+(?:please|now))?\W*")
ANSWER = re.compile(r"\b(?:answers?|output|respond|reply|return|say|print|classify)\W*$")
NEW_ROOM = re.compile(rf"\W*(?:change|switch|set|update)\s+(?:the\s+)?rooms?\s+(?:number\s+)?to\s+{NUM}\W*")
ROOMS_OF_ONE = re.compile(rf"\W*rooms\s+{NUM}\W*")
"""Nobody says "rooms 412"."""
HAS_RELATION = re.compile(
    r"\b(?:to|in|at|for|from|on|needs?|wants?|is|are|was|has|have|had|please|can|could|need|send|bring|get|take|asking|there|copy"
    r"|thanks?|going|waiting|we|i|she|he|they|guest|guests)\b|'s\b"
)
LABEL_WORDS = re.compile(
    rf"\bthe\s+room\s+(?:is|shall\s+be|will\s+be|must\s+be|should\s+be)\s+{NUM}\W*$|"
    r"\bcritical\b|\burgency\b|\bseverity\b|\blabel\b|\bclassif\w+|\bjson\b|\bintent\b|\bconfidence\b|\binsights?\b"
    r"|\b(?:highest|maximum|max|top)\s+(?:priority|urgency|level)\b|\bas\s+(?:an?\s+)?(?:emergency|urgent|high)\b"
)
VALUE_AT_END = re.compile(rf"\b{_ANY_LABEL}\W*$")
ROOM_AT_END = re.compile(rf"\b(?:{ROOMS}|{NUM})\W*$")

FIELD = re.compile(
    r"[\"'\u201c\u201d\u2018\u2019`]?\b(?:rooms|room_numbers?|urgency|intent|department|severity|confidence|insights?|summary|evidence|degraded"
    r"|is_emergency|critical|emergency)\b[\"'\u201c\u201d\u2018\u2019`]?\s*(?::=|={1,2}>?|:)\s*(?:\[[^\]]{0,200}\]?|\"[^\"]{0,200}\"?|'[^']{0,200}'?"
    r"|\u201c[^\u201d]{0,200}\u201d?|[\w.-]+(?:\s*,\s*\d{2,4})*)"
    r"|[\"'`](?:room|items?|priority|name|quantity|role|content|label|category|type|source)[\"'`]\s*[:=]\s*(?:\[[^\]]{0,200}\]?"
    r"|\"[^\"]{0,200}\"?|'[^']{0,200}'?|[\w.-]+)"
    r"|\b(?:room|items?|priority|label|category)\s*={1,2}\s*[\w.\"'-]+"
)
TAG = re.compile(
    r"<\s*(?P<close>/?)\s*(?P<name>utterance|context|system|user|assistant|human|instructions?|prompt|message|transcript"
    r"|examples?|json|answer|output|tool\w*|function\w*|admin|developer|im_start|im_end|s|script|result)\b[^<>]{0,80}>"
    r"|<\|[^|<>]{1,40}\|>|\[\s*/?\s*(?:inst|sys|system|user|assistant|system\s+message|admin|developer)\s*\]|<</?sys>>"
    r"|\#{2,}\s*\w+|```\w*|-{3,}\s*(?:system|user|end|begin|new)[\w\s]{0,30}-{0,5}"
)
ROLE = re.compile(
    r"\b(?:classification|label|category|output|result|json|response|verdict|answer)\s*(?::|=>|->)|"
    r"(?:^|(?<=[\s.,!?\"'>\](*]))\(?\*{0,2}(?:system|assistant|developer|admin|administrator|root|ai|model)\s*(?:message|prompt|note|override"
    r"|instructions?|command)?\s*\*{0,2}\)?\s*(?::|>|=>|->)"
    r"|\b(?:note|message|instructions?|command|order|memo|request)\s+(?:to|for)\s+(?:the\s+|any\s+)?(?:\w+\s+)?(?:ai|assistant|model"
    r"|llm|classifier|bot|chat\s?bot|system|machine|quick\s?comm)\s*:"
)
