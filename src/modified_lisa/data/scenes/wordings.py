"""How queries are put into words: the table of templates (`speaker.py` explains their signs).

Slots: ``{n}`` the noun, for one or several as the answer needs; ``{n1}`` and ``{ns}`` always one, always
several; ``{r}``, ``{q}`` another object ("the blue box"); ``{c}``, ``{d}`` a word such as a colour;
``{m}`` a number; ``{t}``, ``{t1}``, ``{ts}`` thing or object or item.
"""

from modified_lisa.data.scenes.wordings_more import MORE, MORE_COMMANDS, MORE_QUESTIONS

__all__ = ["BANKS", "COMMANDS", "QUESTIONS", "TEXTURE_WORDS"]

COMMANDS = (
    "Segment {np}.",
    "Show me {np}.",
    "Please mark {np}.",
    "Find {np}.",
    "Point out {np}.",
    "Can you segment {np}?",
    "Could you show me {np}?",
    "Please give me the mask of {np}.",
    "Highlight {np}.",
    "!Please outline {np}.",
    "!I am looking for {np}.",
    "!Colour in {np}.",
    "!Would you pick out {np}, please?",
    *MORE_COMMANDS,
)
"""Sentences around any phrase."""
QUESTIONS = (
    "Where [is|are] {np}?",
    "Where can I see {np}?",
    "Which pixels belong to {np}?",
    "Where in this image [is|are] {np}?",
    "What part of the picture shows {np}?",
    "!In which part of the image [is|are] {np}?",
    "!Where should I look for {np}?",
    "!Whereabouts [is|are] {np}?",
    *MORE_QUESTIONS,
)
"""Sentences around a phrase that starts with "the" or a number."""

TEXTURE_WORDS = {
    "striped": ("stripes", "a striped pattern"),
    "spotted": ("spots", "dots all over"),
    "checked": ("checks", "a checked pattern"),
}

BANKS: dict[str, tuple[str, ...]] = {
    # attribute
    "name": ("the {n}", "the {n}", "the {n} that you can see", "!the {n} somewhere in there", "!the {n} that [appears|appear] here"),
    "colour": ("the {c} {t}", "the {t} that [is|are] {c}", "what is {c} here", "the {t} in {c}", "Which {t} [is|are] {c}?", "What here is {c}?", "!the {t} coloured in {c}", "!the {c}-coloured {t}", "!Which {t} [has|have] the colour {c}?"),
    "kind and colour": ("the {c} {n}", "the {n} that [is|are] {c}", "the {n} in {c}", "Which {n} [is|are] {c}?", "!among the {ns}, the {c} [one|ones]", "!the {n} coloured in {c}", "!Of the {ns}, which [is|are] {c}?"),
    "texture": ("the {t} with {c}", "the {d} {t}", "what has {c}", "Which {t} [has|have] {c}?", "What is {d} here?", "!the {t} covered with {c}", "!the {t} whose surface shows {c}", "!Which {t} [is|are] covered with {c}?"),
    "kind and texture": ("the {n} with {c}", "the {d} {n}", "Which {n} [has|have] {c}?", "!among the {ns}, the {d} [one|ones]", "!the {n} covered with {c}", "!Of the {ns}, which [has|have] {c}?"),
    # superlative
    "largest": ("the largest {n}", "the biggest {n}", "the largest of the {ns}", "the {n} that is bigger than all the other {ns}", "Which {n1} is the largest?", "Which of the {ns} is the biggest?", "!the {n} of the greatest size", "!the {n} that takes up the most room", "!Which {n1} takes up more room than any other?"),
    "smallest": ("the smallest {n}", "the tiniest {n}", "the smallest of the {ns}", "the {n} that is smaller than all the other {ns}", "Which {n1} is the smallest?", "Which of the {ns} is the smallest?", "!the {n} of the least size", "!the {n} that takes up the least room", "!Which {n1} takes up less room than any other?"),
    "tallest": ("the tallest {n}", "the {n} that is taller than all the other {ns}", "Which {n1} is the tallest?", "!the {n} with the greatest height", "!Which {n1} has the greatest height?"),
    "widest": ("the widest {n}", "the {n} that is wider than all the other {ns}", "Which {n1} is the widest?", "!the {n} with the greatest width", "!Which {n1} has the greatest width?"),
    "leftmost": ("the leftmost {n}", "the {n} farthest to the left", "the first {n} from the left", "Which {n1} is farthest to the left?", "!the {n} nearest to the left edge", "!Which {n1} is closest to the left edge?"),
    "rightmost": ("the rightmost {n}", "the {n} farthest to the right", "the first {n} from the right", "Which {n1} is farthest to the right?", "!the {n} nearest to the right edge", "!Which {n1} is closest to the right edge?"),
    "topmost": ("the topmost {n}", "the highest {n} in the picture", "the {n} nearest to the top", "Which {n1} is highest up in the picture?", "!the {n} above all the others", "!Which {n1} is above all the others?"),
    "lowest": ("the lowest {n}", "the {n} nearest to the bottom", "the {n} at the very bottom", "Which {n1} is lowest in the picture?", "!the {n} below all the others", "!Which {n1} is below all the others?"),
    "central": ("the {n} nearest to the centre", "the {n} closest to the middle of the picture", "the most central {n}", "Which {n1} is nearest to the middle?", "!the {n} at the heart of the picture", "!Which {n1} would you call the central one?"),
    "corner": ("the {n} nearest to the {c} corner", "the {n} in the {c} corner", "Which {n1} is closest to the {c} corner?", "!the {n} that the {c} corner is closest to", "!What {n1} would I find in the {c} corner?"),
    "nth": ("the {c} {n1} from the {d}", "the {c} of the {ns}, counted from the {d}", "Which {n1} is {c} from the {d}?", "!counting from the {d}, the {c} {n1}", "!Counting from the {d}, which is the {c} {n1}?"),
    "second largest": ("the second largest {n1}", "the second biggest of the {ns}", "Which {n1} is the second largest?", "!the {n1} that comes second in size", "!Which {n1} comes second in size?"),
    # comparison
    "larger than": ("the {n} larger than {r}", "the {n} that [is|are] bigger than {r}", "what is larger than {r}", "Which {n} [is|are] bigger than {r}?", "!the {n} of a greater size than {r}", "!Which {n} [takes|take] up more room than {r}?"),
    "smaller than": ("the {n} smaller than {r}", "the {n} that [is|are] smaller than {r}", "what is smaller than {r}", "Which {n} [is|are] smaller than {r}?", "!the {n} of a lesser size than {r}", "!Which {n} [takes|take] up less room than {r}?"),
    # relation
    "left": ("the {n} to the left of {r}", "the {n} left of {r}", "the {n} on the left side of {r}", "what is to the left of {r}", "Which {n} [is|are] left of {r}?", "What [is|are] the {n} to the left of {r}?", "!the {n} with {r} to [its|their] right", "!Looking left from {r}, which {n} do you see?"),
    "right": ("the {n} to the right of {r}", "the {n} right of {r}", "the {n} on the right side of {r}", "what is to the right of {r}", "Which {n} [is|are] right of {r}?", "What [is|are] the {n} to the right of {r}?", "!the {n} with {r} to [its|their] left", "!Looking right from {r}, which {n} do you see?"),
    "above": ("the {n} above {r}", "the {n} higher up than {r}", "what is above {r}", "Which {n} [is|are] above {r}?", "What is higher in the picture than {r}?", "!the {n} with {r} below [it|them]", "!Looking up from {r}, which {n} do you see?"),
    "below": ("the {n} below {r}", "the {n} lower down than {r}", "what is below {r}", "Which {n} [is|are] below {r}?", "What is lower in the picture than {r}?", "!the {n} with {r} above [it|them]", "!Looking down from {r}, which {n} do you see?"),
    "next to": ("the {n} next to {r}", "the {n} beside {r}", "what is next to {r}", "Which {n} is next to {r}?", "What is beside {r}?", "!the {n} that is the neighbour of {r}", "!Which {n} is the neighbour of {r}?"),
    "nearest to": ("the {n} nearest to {r}", "the {n} closest to {r}", "Which {n} is nearest to {r}?", "Which of the {ns} is closest to {r}?", "!the {n} at the least distance from {r}", "!Starting at {r}, which {n} would I reach first?"),
    "farthest from": ("the {n} farthest from {r}", "the {n} most distant from {r}", "Which {n} is farthest away from {r}?", "Which of the {ns} is farthest from {r}?", "!the {n} at the greatest distance from {r}", "!Starting at {r}, which {n} would I reach last?"),
    "in front of": ("the {n} in front of {r}", "the {n} that partly [hides|hide] {r}", "what covers a part of {r}", "Which {n} [is|are] in front of {r}?", "What hides a part of {r}?", "!the {n} that [gets|get] in the way of {r}", "!Which {n} [gets|get] in the way of {r}?"),
    "behind": ("the {n} behind {r}", "the {n} partly hidden by {r}", "what is partly covered by {r}", "Which {n} [is|are] behind {r}?", "What is partly hidden by {r}?", "!the {n} peeping out from behind {r}", "!Which {n} [peeps|peep] out from behind {r}?"),
    "between": ("the {n} between {r} and {q}", "what is between {r} and {q}", "Which {n} [is|are] between {r} and {q}?", "!the {n} with {r} on one side and {q} on the other", "!Which {n} would I pass on the way from {r} to {q}?"),
    "same colour as": ("the other {n} of the same colour as {r}", "the {n} with the same colour as {r}", "what else has the colour of {r}", "Which other {n} [has|have] the same colour as {r}?", "!the {n} in the very colour of {r}", "!Which {n} [has|have] the very colour of {r}?"),
    "same kind as": ("the other {n} of the same kind as {r}", "the {n} of the same kind as {r}", "Which other {n} [is|are] of the same kind as {r}?", "!the {n} that [is|are] the same sort of thing as {r}", "!Which other {n} [is|are] the same sort of thing as {r}?"),
    # counting
    "kind count": ("the kind of {t1} that is there exactly {m} times", "the {ts} of which there are exactly {m}", "Which kind of {t1} is there exactly {m} times?", "Of which kind are there exactly {m}?", "!the group of exactly {m} {ts} of one kind", "!Which sort of {t1} would you count {m} of?"),
    "colour count": ("the {ts} whose colour is shared by exactly {m} {ts}", "the {ts} of the colour that is there exactly {m} times", "Which colour do exactly {m} {ts} have? Show them.", "!the group of exactly {m} {ts} in one colour", "!Which {ts} are in the colour that you would count {m} times?"),
    "most common kind": ("the most common kind of {t1}", "the kind of {t1} that is there most often", "Which kind of {t1} is the most common?", "!the sort of {t1} that outnumbers all others", "!Which sort of {t1} outnumbers the others?"),
    "most common colour": ("the {ts} in the most common colour", "the {ts} whose colour is there most often", "Which {ts} have the most common colour?", "!the {ts} in the colour that outnumbers all others", "!Which {ts} have the colour that is the most popular here?"),
    "only one of its kind": ("the only {t} of its kind", "the {t} that is there only once", "the odd one out in kind", "the one that is not like the others", "Which {t} is the only one of its kind?", "!the {t} without a twin", "!Which {t} has no twin here?"),
    "only one of its colour": ("the only {t} of its colour", "the odd one out in colour", "the {t} in a colour of its own", "Which {t} has a colour that no other has?", "!the {t} that matches none of the others in colour", "!Which {t} matches no other in colour?"),
    # negation
    "not colour": ("everything that is not {c}", "all the {ts} that are not {c}", "all that is not {c}", "What here is not {c}?", "Which {t} [is|are] not {c}?", "!everything of another colour than {c}", "!What has any colour but {c}?"),
    "kind not colour": ("the {n} that [is|are] not {c}", "the {n} in another colour than {c}", "Which {n} [is|are] not {c}?", "!any {n1} but the {c} [one|ones]", "!Leaving out the {c} [one|ones], where are the {ns}?"),
    "not kind": ("everything that is not a(n) {n1}", "all the {ts} that are not {ns}", "what is not a(n) {n1}", "Which {t} [is|are] no {n}?", "What here is not a(n) {n1}?", "!everything apart from the {ns}", "!What is left when the {ns} are taken away?"),
    "neither": ("the {t} that [is|are] neither {c} nor {d}", "everything that is neither {c} nor {d}", "What is neither {c} nor {d}?", "!what has any colour except {c} and {d}", "!If I ignore {c} and {d}, what is left?"),
    "without texture": ("everything without {c}", "the {t} without {c}", "all that is not {d}", "What has no {e}?", "!the {t} that [lacks|lack] {e}", "!What lacks {e}?"),
    "all but": ("everything except {r}", "all the {ts} but {r}", "What else is there besides {r}?", "!the whole group without {r}", "!If {r} were gone, what would be left?"),
    # several
    "all": ("all the {ns}", "every {n1}", "all {ns}", "the {ns}", "the {m} {ns}", "What are all the {ns} here?", "Which of these are {ns}?", "!the whole set of {ns}", "!each and every {n1}", "!Where would I find every single {n1}?"),
    "both": ("{r} and {q}", "both {r} and {q}", "{r} together with {q}", "Where are {r} and {q}?", "!{r} as well as {q}", "!Where do I see {r} as well as {q}?"),
    "two groups": ("all the {ns} and all the {ms}", "the {ns} and the {ms}", "Which {ts} are {ns} or {ms}?", "!every {ns1} and every {ms1}", "!Where are the {ns}, and the {ms} too?"),
    "first few": ("the {m} {c} {ns}", "Which are the {m} {c} {ns}?", "Where are the {m} {c} {ns}?", "!the {c} {m} of the {ns}", "!Which {m} of the {ns} are the {c}?"),
    "half": ("everything in the {c} half of the picture", "all the {ns} in the {c} half", "Which {ns} are in the {c} half of the picture?", "!whatever lies in the {c} half", "!What would be left if only the {c} half of the picture were kept?"),
    # two-step
    "largest on side": ("the largest {n1} {d} {r}", "of the {ns} {d} {r}, the biggest one", "Which is the largest {n1} {d} {r}?", "!the {n1} of the greatest size {d} {r}", "!What takes up the most room of all the {ns} {d} {r}?"),
    "smallest on side": ("the smallest {n1} {d} {r}", "of the {ns} {d} {r}, the smallest one", "Which is the smallest {n1} {d} {r}?", "!the {n1} of the least size {d} {r}", "!What takes up the least room of all the {ns} {d} {r}?"),
}  # fmt: skip
BANKS = {concept: (*texts, *MORE.get(concept, ())) for concept, texts in BANKS.items()}
