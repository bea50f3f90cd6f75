"""More wordings, added to those of `wordings.py`: bare nouns, everyday and indirect ways to ask.

The same signs and slots. A phrase without an article ("{c} {n}") is used by itself only, never in a sentence.
"""

__all__ = ["MORE", "MORE_COMMANDS", "MORE_QUESTIONS"]

MORE_COMMANDS = (
    "Mark {np} for me.",
    "Select {np}.",
    "Please select {np}.",
    "Let me see {np}.",
    "I would like to see {np}.",
    "I need the mask of {np}.",
    "Draw around {np}.",
    "Trace {np}.",
    "Can you find {np}?",
    "Can you point to {np}?",
    "Could you please highlight {np}?",
    "Please help me find {np}.",
    "Would you mind marking {np}?",
    "In this picture, find {np}.",
    "Give me {np}.",
    "I want to know which pixels show {np}.",
    "Look at the image and segment {np}.",
    "!Kindly indicate {np}.",
    "!Take a look and pick {np}.",
    "!Put a mask over {np}.",
)
MORE_QUESTIONS = (
    "Can you tell me where {np} [is|are]?",
    "Could you tell me where {np} [is|are]?",
    "Where exactly [is|are] {np}?",
    "Where do you see {np}?",
    "What area of the picture shows {np}?",
    "I cannot find {np}. Where [is|are] [it|they]?",
    "Can you see {np}? Mark [it|them].",
    "Please show me where {np} [is|are].",
    "!Do you know where {np} [is|are]?",
    "!I have lost sight of {np}. Where [is|are] [it|they]?",
)

MORE: dict[str, tuple[str, ...]] = {
    # attribute
    "name": ("{n}", "[a(n) {n1}|some {ns}]", "the {n} in the picture", "the {n} in this image", "the {n} shown here", "What looks like a(n) {n1}?", "Is there a(n) {n1} here? Mark it.", "I am interested in the {n}.", "!the {n} depicted in the scene"),
    "colour": ("{c} {t}", "anything {c}", "everything {c}", "the {t} of {c} colour", "the {t} painted {c}", "whatever is {c}", "Which {t} here [is|are] painted {c}?", "Where is something {c}?", "!the {t} that you would call {c}"),
    "kind and colour": ("{c} {n}", "[a(n) {c} {n1}|some {c} {ns}]", "the {n} whose colour is {c}", "the {n} painted {c}", "Is there a(n) {c} {n1}? Mark it.", "There are several things here. Which {n} [is|are] {c}?", "!the {n} that you would call {c}"),
    "texture": ("{d} {t}", "the {t} that [is|are] {d}", "the {t} that [has|have] {c}", "anything {d}", "Is there something {d} here?", "!the {t} on which you see {c}"),
    "kind and texture": ("{d} {n}", "the {n} that [is|are] {d}", "the {n} that [has|have] {c}", "Is there a(n) {d} {n1}? Mark it.", "!the {n} on which you see {c}"),
    # superlative
    "largest": ("biggest {n}", "largest {n}", "the {n} that is the biggest", "the {n} that is larger than the others", "the {n} with the largest size", "What is the biggest {n1} here?", "Compare the {ns} and show me the largest.", "!the {n} that outgrows all the other {ns}"),
    "smallest": ("smallest {n}", "tiniest {n}", "the {n} that is the smallest", "the littlest {n}", "the {n} with the smallest size", "What is the smallest {n1} here?", "Compare the {ns} and show me the smallest.", "!the {n} that all the other {ns} outgrow"),
    "tallest": ("tallest {n}", "the {n} that is the tallest", "the {n} that reaches over the greatest height", "What is the tallest {n1} here?", "Compare the {ns} and show me the tallest."),
    "widest": ("widest {n}", "the {n} that is the widest", "the broadest {n}", "What is the widest {n1} here?", "Compare the {ns} and show me the widest."),
    "leftmost": ("leftmost {n}", "the {n} on the far left", "the {n} at the very left", "What {n1} is all the way to the left?", "Going from left to right, which {n1} comes first?", "!the {n} that has no other {n1} to its left"),
    "rightmost": ("rightmost {n}", "the {n} on the far right", "the {n} at the very right", "What {n1} is all the way to the right?", "Going from right to left, which {n1} comes first?", "!the {n} that has no other {n1} to its right"),
    "topmost": ("topmost {n}", "the highest {n}", "the {n} at the very top", "the uppermost {n}", "What {n1} is at the top?", "Going from top to bottom, which {n1} comes first?"),
    "lowest": ("lowest {n}", "the bottommost {n}", "the {n} lowest in the picture", "What {n1} is at the bottom?", "Going from bottom to top, which {n1} comes first?"),
    "central": ("the {n} in the middle", "the {n} in the centre", "the {n} at the centre of the image", "What {n1} is in the middle?"),
    "corner": ("the {n} at the {c}", "the {n} in the {c} of the picture", "{c} {n1}", "What {n1} is in the {c} corner?"),
    "nth": ("number {m} of the {ns} from the {d}", "the {n1} that is {c} from the {d}", "Going from the {d}, which {n1} comes {c}?"),
    "second largest": ("second largest {n1}", "the {n1} that is only smaller than the largest one", "the runner-up in size among the {ns}", "What is the second biggest {n1} here?"),
    # comparison
    "larger than": ("the {n} that [is|are] larger than {r}", "the {n} bigger than {r}", "all the {ts} that are larger than {r}", "Compared with {r}, which {n} [is|are] larger?", "Is any {n1} larger than {r}? Show me."),
    "smaller than": ("the {n} that [is|are] tinier than {r}", "the {n} littler than {r}", "all the {ts} that are smaller than {r}", "Compared with {r}, which {n} [is|are] smaller?", "Is any {n1} smaller than {r}? Show me."),
    # relation
    "left": ("the {n} that [is|are] to the left of {r}", "the {n} found left of {r}", "the {n} on the left of {r}", "If I look to the left of {r}, which {n} do I see?"),
    "right": ("the {n} that [is|are] to the right of {r}", "the {n} found right of {r}", "the {n} on the right of {r}", "If I look to the right of {r}, which {n} do I see?"),
    "above": ("the {n} that [is|are] above {r}", "the {n} over {r}", "the {n} up from {r}", "If I look above {r}, which {n} do I see?"),
    "below": ("the {n} that [is|are] below {r}", "the {n} under {r}", "the {n} beneath {r}", "the {n} underneath {r}", "If I look below {r}, which {n} do I see?"),
    "next to": ("the {n} right beside {r}", "the {n} that is close to {r}", "the {n} by {r}", "the {n} that is next to {r}", "the neighbouring {n} of {r}", "What do you find next to {r}?"),
    "nearest to": ("the {n} that is the closest to {r}", "the {n} with the shortest way to {r}", "the closest {n} to {r}", "What {n1} lies nearest to {r}?"),
    "farthest from": ("the {n} that is the farthest from {r}", "the {n} with the longest way to {r}", "the {n} furthest away from {r}", "What {n1} lies farthest from {r}?"),
    "in front of": ("the {n} that [is|are] in front of {r}", "the {n} covering a part of {r}", "the {n} that [overlaps|overlap] {r} from the front", "What stands in front of {r}?"),
    "behind": ("the {n} that [is|are] behind {r}", "the {n} that {r} partly covers", "what stands behind {r}", "What does {r} partly hide?"),
    "between": ("the {n} that [is|are] between {r} and {q}", "the {n} in the middle between {r} and {q}", "What stands between {r} and {q}?"),
    "same colour as": ("the {n} that [shares|share] its colour with {r}", "the {n} coloured like {r}", "What has the same colour as {r}?"),
    "same kind as": ("the other {n} like {r}", "the {n} that [is|are] the same kind of thing as {r}", "What else is the same kind of thing as {r}?"),
    # counting
    "kind count": ("the {ts} that you can count exactly {m} of", "the kind of {t1} that you see exactly {m} times", "What is there exactly {m} times?", "What kind of {t1} do you see exactly {m} times?"),
    "colour count": ("the {m} {ts} that share a colour", "the {ts} in the colour that you see exactly {m} times", "Exactly {m} {ts} share a colour. Which [one|ones]?"),
    "most common kind": ("the {ts} of the most common kind", "the kind of {t1} with the most members", "What do you see most often here?", "Of which kind are there the most?"),
    "most common colour": ("the {ts} of the colour that most of them share", "the {ts} in the colour you see most often", "What colour is the most common? Show the {ts} that have it."),
    "only one of its kind": ("the odd one out", "the {t} unlike any other", "the {t} that has no second of its kind", "What is there only once?"),
    "only one of its colour": ("the {t} that has no other in its colour", "the {t} coloured unlike any other", "Which {t} differs from all the others in colour?"),
    # negation
    "not colour": ("the {ts} that are not {c}", "everything but the {c} {ts}", "everything except what is {c}", "no {c} {ts}, but all the others", "Can you find the {ts} that are not {c}?"),
    "kind not colour": ("the {n} not in {c}", "the {n} that [has|have] a colour other than {c}", "not the {c} {n1} but the other {n}", "Can you find the {n} that [is|are] not {c}?"),
    "not kind": ("everything except the {ns}", "everything but the {ns}", "the {ts} other than the {ns}", "anything that is not a(n) {n1}", "Besides the {ns}, what is there?"),
    "neither": ("everything except what is {c} or {d}", "the {ts} that are not {c} and not {d}", "Which {ts} are neither {c} nor {d}?"),
    "without texture": ("the {ts} that are not {d}", "everything that is not {d}", "the {ts} that have no {e}", "Which {ts} are not {d}?"),
    "all but": ("everything but {r}", "the {ts} other than {r}", "all the {ts} except {r}", "Apart from {r}, what is there?"),
    # several
    "all": ("{ns}", "all of the {ns}", "each of the {ns}", "the {ns} in this picture", "Where are the {ns}?", "Which {ts} here are {ns}?"),
    "both": ("{r} and also {q}", "two things: {r} and {q}", "Can you show me {r} and {q} at once?"),
    "two groups": ("all {ns} and {ms}", "the {ns} together with the {ms}", "Where are all the {ns} and {ms}?"),
    "first few": ("the {m} {c} ones of the {ns}", "{m} {ns}, the {c} ones", "Can you find the {m} {c} {ns}?"),
    "half": ("the {ts} in the {c} half", "what lies in the {c} half of the image", "What is in the {c} half of the picture?"),
    # two-step
    "largest on side": ("the biggest {n1} {d} {r}", "the {n1} {d} {r} that is larger than the others there", "Look {d} {r}: which {n1} is the largest there?"),
    "smallest on side": ("the tiniest {n1} {d} {r}", "the {n1} {d} {r} that is smaller than the others there", "Look {d} {r}: which {n1} is the smallest there?"),
}  # fmt: skip
