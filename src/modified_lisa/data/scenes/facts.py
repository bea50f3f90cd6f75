"""What is true of the kinds of object in everyday life, and how people speak of it.

A fact is known for every kind: true (``yes``), false, or open to dispute (``maybe``); a scene with a
disputed object is never asked about that fact. Wordings come in three forms: a clause that follows "the
thing" (starts with "that"), a phrase (starts with "the" or "what"), and a sentence (ends in ? or a full
stop). ``[a|b]`` gives the words for one target and for several; ``!`` marks a wording held out from training.
"""

from dataclasses import dataclass

from modified_lisa.data.scenes.kinds import KINDS

__all__ = ["CAPABILITIES", "FACTS", "Fact", "known"]


@dataclass(frozen=True)
class Fact:
    """Something that is true of some kinds (``yes``), may be of others (``maybe``), and of no more."""

    name: str
    yes: frozenset[str]
    maybe: frozenset[str]
    wordings: tuple[str, ...]
    noun: tuple[str, str] | None = None
    """(singular, plural) where there is a word for such things: fruit, animal, vehicle."""


def _fact(name: str, yes: str, maybe: str, *wordings: str, noun: tuple[str, str] | None = None) -> Fact:
    def split(text: str) -> frozenset[str]:
        kinds = frozenset(part.strip() for part in text.split(",") if part.strip())
        unknown = kinds - set(KINDS)
        if unknown:
            raise ValueError(f"fact {name!r} names kinds that are not in the catalogue: {sorted(unknown)}")
        return kinds

    return Fact(name, split(yes), split(maybe), wordings, noun)


_SCISSORS, _GLASSES = "pair of scissors", "pair of glasses"
_LIVING = "fish, bird, cat, butterfly, snail"
_PLANTS = "tree, flower, cactus"
_FLAT = "circle, square, triangle, hexagon, ring, heart, cross, arrow, star"

_ALL = (
    _fact("rolls", "ball", "apple, circle, ring, clock, balloon, car, bicycle, bottle, cup, pencil, candle, drum, sun, moon, snowman, bucket",
          "that could roll away", "that would roll down a hill", "that rolls", "what could roll away", "Which of these could roll away?",
          "What would roll off a sloping table?", "!that you could roll along the floor", "!Which of these would roll down a slope?"),
    _fact("round", "ball, circle, clock, ring", "apple, balloon, sun, flower, drum, moon, snowman, teddy bear, bicycle, pair of glasses, hat, cloud",
          "that [is|are] round", "the round [thing|things]", "the round [object|objects]", "Which of these [is|are] round?",
          "!that [has|have] a round outline", "!Which [one is|ones are] round in shape?", noun=("round thing", "round things")),
    _fact("edible", "apple, banana, carrot, ice cream, cake", "mushroom, fish, leaf, flower, cactus, bird, snail",
          "that you can eat", "that can be eaten", "what you could eat", "Which of these can be eaten?", "I am hungry. What could I eat here?",
          "the food", "!that would fill an empty stomach", "!What here is good to eat?", "!the [thing|things] to eat"),
    _fact("fruit", "apple, banana", "carrot, ice cream, cake, mushroom, cactus, tree", "that [is|are] fruit", "that [grows|grow] on a tree and can be eaten",
          "Which of these [is|are] fruit?", "!What would go into a bowl of fruit?", "!that could go into a fruit salad", noun=("fruit", "fruits")),
    _fact("sweet", "ice cream, cake", "apple, banana, carrot", "that [is a|are] sweet [treat|treats]", "Which of these would a baker or a sweet shop sell?",
          "the dessert", "!What could be eaten for dessert?", "!that would make a good dessert"),
    _fact("cold", "ice cream, snowman", "fish, bottle, moon", "that would melt in the sun", "Which of these would melt on a hot day?", "what would melt on a hot day",
          "!that should not be left in the sun or [it melts|they melt]", "!What would melt on a warm day?"),
    _fact("vegetable", "carrot", "mushroom, apple, banana, leaf, cactus", "that a rabbit would like to eat", "the vegetable", "Which of these is a vegetable?",
          "!What would a rabbit eat here?", "!that [is a vegetable|are vegetables]"),
    _fact("animal", _LIVING, "teddy bear, snowman", "that [is an animal|are animals]", "Which of these [is an animal|are animals]?",
          "the [animal|animals]", "the living [creature|creatures]", "!that can feel and move by [itself|themselves]", "!Which [one is an animal|ones are animals]?", noun=("animal", "animals")),
    _fact("plant", _PLANTS, "leaf, mushroom, apple, banana, carrot", "that [is a plant|are plants]", "that [needs|need] water and light to grow", "the [plant|plants]",
          "Which of these [is a plant|are plants]?", "!What would a gardener water?", "!that a gardener would water", noun=("plant", "plants")),
    _fact("flies alive", "bird, butterfly", "", "that can fly with [its|their] own wings", "that [has|have] wings", "Which of these can fly with wings?",
          "!What could flap its wings and fly off?", "!that could fly off with a flap of the wings"),
    _fact("swims", "fish", "boat, bird, snail, bottle", "that lives under water", "that can breathe under water", "Which of these lives under water?", "the swimmer",
          "!What would live in the sea?", "!that would live in the sea"),
    _fact("pet", "cat", "fish, bird, teddy bear, snail", "that could chase a mouse", "that says meow", "Which of these could catch a mouse?", "the pet with whiskers",
          "!What would chase mice?", "!that would purr"),
    _fact("slow", "snail", "", "that carries its house on its back", "that moves very slowly and [leaves|leave] a trail", "Which of these carries its home on its back?",
          "!What lives in a shell?", "!that lives in a shell"),
    _fact("vehicle", "car, bicycle, boat", "rocket, balloon, kite", "that you can travel in or on", "that [is a vehicle|are vehicles]", "the [vehicle|vehicles]",
          "Which of these could take you to another town?", "!What could somebody travel with?", "!that could take you on a journey", noun=("vehicle", "vehicles")),
    _fact("wheels", "car, bicycle", "", "that [has|have] wheels", "that [runs|run] on wheels", "Which of these [has|have] wheels?", "what moves on wheels",
          "!What could drive along a road?", "!that could be driven along a road"),
    _fact("floats", "boat", "bottle, ball, balloon, leaf, fish, box, bucket", "that sails on water", "that could cross a lake", "Which of these sails on the sea?", "what sails on water",
          "!What could carry people across a lake?", "!that could carry people across the sea"),
    _fact("pedals", "bicycle", "", "that you ride by turning pedals", "that has two wheels and no engine", "Which of these is ridden with pedals?",
          "!What do you ride with pedals?", "!that has pedals"),
    _fact("space", "rocket", "moon, sun, star, kite, balloon", "that could fly to the moon", "that takes people into space", "Which of these could take you into space?",
          "!What would an astronaut travel in?", "!that an astronaut would travel in"),
    _fact("sky", "sun, moon, cloud", "star, bird, kite, balloon, rocket, butterfly", "that [belongs|belong] in the sky", "that you see up in the sky", "Which of these would you see in the sky?",
          "what belongs in the sky", "!What can be seen high above when you look up?", "!that can be seen by looking up at the sky"),
    _fact("rain", "cloud", "umbrella, sun, moon, bucket", "that brings rain", "that rain falls from", "Which of these brings rain?", "!Where would rain come from?", "!that could bring a shower of rain"),
    _fact("keeps dry", "umbrella", "hat, house, shirt, car, mushroom, tree, shoe", "that keeps you dry in the rain", "that you open when it rains", "Which of these would keep me dry in the rain?",
          "what keeps you dry", "It is raining. What should I take with me?", "!What would help against the rain?", "!that [helps|help] when it rains"),
    _fact("light", "lamp, candle", "sun, moon, star, phone, cake, car, rocket", "that [gives|give] light", "that [lights|light] up a dark room", "Which of these [gives|give] light?",
          "It is dark in here. What could help?", "what gives light", "!What would help to see at night?", "!that would help you see at night"),
    _fact("burns", "candle", "cake, rocket, sun, lamp", "that is lit with a match", "that is made of wax", "Which of these is made of wax?", "!What do you light with a match?", "!that [melts while it burns|melt while they burn]"),
    _fact("time", "clock", "phone, sun, moon, bell", "that tells the time", "that shows the hour", "Which of these tells the time?", "What should I look at to know how late it is?",
          "what tells the time", "!How could I find out what time it is?", "!that would tell you how late it is"),
    _fact("reads", "book", "envelope, phone", "that you read", "that is full of pages", "Which of these can be read?", "what you would read", "!What has pages with a story?", "!that has pages with a story in it"),
    _fact("writes", "pencil", "paintbrush, phone", "that you write with", "that has a sharp point for drawing", "Which of these is for writing?", "What would I need to write a letter?",
          "!What could I write a note with?", "!that could be used to write a note"),
    _fact("post", "envelope", "box, present, phone", "that you send by post", "that needs a stamp", "Which of these needs a stamp?", "!What would go into a letter box?", "!that would go into a letter box"),
    _fact("calls", "phone", "bell", "that you can call somebody with", "that rings when a friend calls", "Which of these could I call a friend with?", "!How could I call for help here?", "!that could be used to call for help"),
    _fact("opens", "key", "", "that opens a door", "that fits into a lock", "Which of these opens a door?", "I am locked out. What do I need?", "what unlocks a door",
          "!What could open a lock?", "!that could open a lock"),
    _fact("climbs", "ladder", "chair, table, tree, box, bucket", "that you climb to reach high places", "that has rungs", "Which of these helps to reach a high shelf?", "what you climb up on",
          "!What could I climb to get onto a roof?", "!that would get you up onto a roof"),
    _fact("sits", "chair", "table, box, car, bicycle, boat, bucket, drum", "that you sit on", "that is made for sitting", "Which of these is for sitting on?", "I am tired. Where could I sit down?",
          "!What would you offer a tired guest?", "!that you would offer a tired guest"),
    _fact("meals", "table", "chair, box, book", "that you put plates on for a meal", "that people sit around to eat", "Which of these do people eat at?", "!Where would you set down the dishes?", "!that dishes are put on"),
    _fact("furniture", "chair, table", "lamp, clock, ladder, box", "that [is|are] furniture", "the [piece|pieces] of furniture", "Which of these [is|are] furniture?",
          "!What would a carpenter build for a dining room?", "!that [belongs|belong] in a dining room", noun=("piece of furniture", "pieces of furniture")),
    _fact("nails", "hammer", "", "that drives nails into wood", "that you hit nails with", "Which of these is for hitting nails?", "What do I need to hang up a picture with a nail?",
          "!What could I use to knock in a nail?", "!that could knock in a nail"),
    _fact("cuts", f"saw, {_SCISSORS}", "hammer, key, pencil, spoon", "that [is|are] for cutting", "that you cut with", "Which of these could cut something?", "what you could cut with",
          "!What could I use to cut something in two?", "!that could cut something in two"),
    _fact("paper", _SCISSORS, "saw, pencil", "that cuts paper", "that cuts hair or paper", "Which of these cuts paper?", "!What would a barber use?", "!that a barber would use"),
    _fact("planks", "saw", f"{_SCISSORS}, hammer", "that cuts planks", "that has sharp teeth for wood", "Which of these cuts wood?", "!What would cut a board?", "!that could cut a board"),
    _fact("paints", "paintbrush", "pencil, bucket", "that you paint with", "that an artist dips into paint", "Which of these is for painting?", "!What would I need to paint a wall?", "!that could paint a wall"),
    _fact("tool", f"hammer, saw, {_SCISSORS}", f"ladder, key, pencil, paintbrush, spoon, lamp, bucket, {_GLASSES}, phone", "that [is a tool|are tools]", "the [tool|tools]", "Which of these [is a tool|are tools]?",
          "!What would be kept in a tool box?", "!that would be kept in a tool box", noun=("tool", "tools")),
    _fact("soup", "spoon", "cup, pencil", "that you eat soup with", "that you stir tea with", "Which of these would I eat soup with?", "!What could I stir my tea with?", "!that would stir a cup of tea"),
    _fact("drinks", "cup, bottle", "bucket, spoon, apple, box", "that [holds|hold] a drink", "that you drink from", "Which of these could hold a drink?", "I am thirsty. What could I drink from?",
          "what holds a drink", "!What could I fill with water and drink?", "!that could be filled with juice"),
    _fact("coffee", "cup", "bottle, bucket, spoon", "that you drink hot coffee from", "that holds a hot drink", "Which of these would you pour coffee into?", "!What is tea served in?", "!that tea is served in"),
    _fact("carries water", "bucket", "cup, bottle, boat", "that you carry water in to wash the floor", "that [has a wide opening|have wide openings] and a handle on top", "Which of these would carry water for cleaning?", "!What would I carry sand in?", "!that could carry sand on a beach"),
    _fact("packs", "box", "present, bucket, envelope, house, drum", "that you pack things into", "that you would use for moving house", "Which of these do you pack things into?", "!What could I store old toys in?", "!that old toys could be stored in"),
    _fact("gift", "present", "box, flower, balloon, teddy bear, cake, heart", "that you unwrap on a birthday", "that is tied with a ribbon", "Which of these would you unwrap?", "!What is waiting to be unwrapped?", "!that is waiting to be unwrapped"),
    _fact("worn", f"hat, shoe, shirt, {_GLASSES}", "umbrella, ring, heart", "that you wear", "that people put on their body", "Which of these can be worn?", "what you could wear",
          "!What would you put on in the morning?", "!that you would put on in the morning"),
    _fact("head", "hat", f"{_GLASSES}, umbrella, cup, bucket", "that you wear on your head", "that shades your head from the sun", "Which of these goes on your head?", "!What keeps your hair covered?", "!that keeps your hair covered"),
    _fact("feet", "shoe", "", "that you wear on your foot", "that has laces", "Which of these goes on a foot?", "!What would I put on to go for a walk?", "!that you tie with laces before a walk"),
    _fact("see better", _GLASSES, "lamp, book", "that helps you see clearly", "that sits on your nose", "Which of these would help me see clearly?", "!What do people with weak eyes need?", "!that helps people with weak eyes"),
    _fact("music", "drum, guitar", "bell, phone, bird", "that makes music", "that you play music on", "the musical [instrument|instruments]", "Which of these makes music?",
          "!What would a band play on?", "!that a band would play on", noun=("musical instrument", "musical instruments")),
    _fact("strings", "guitar", "kite", "that has strings to play on", "that you play by plucking strings", "Which of these has strings to pluck?", "!What would you strum?", "!that you would strum"),
    _fact("sticks", "drum", "", "that you beat with sticks", "that is played with sticks", "Which of these do you beat with sticks?", "!What do you drum on?", "!that you would drum on"),
    _fact("rings", "bell", "phone, clock, bicycle", "that goes ding dong", "that [rings|ring] when you shake [it|them]", "Which of these would ring in the wind?", "!What hangs in a church tower?", "!that hangs in a church tower"),
    _fact("cuddle", "teddy bear", "cat, bird", "that a child hugs in bed", "that is soft and made for hugging", "Which of these would a child hug at night?", "!What would a child take to bed?", "!that a child would take to bed"),
    _fact("wind", "kite", "balloon, boat, umbrella, leaf, cloud", "that you fly on a string when it is windy", "that needs wind to fly", "Which of these needs wind and a string to fly?", "!What would you fly on a windy beach?", "!that you would fly on a windy beach"),
    _fact("pops", "balloon", "ball", "that [is|are] filled with air and could pop", "that pops when you prick [it|them]", "Which of these would pop if pricked?", "!What would burst at the touch of a needle?", "!that would burst at the touch of a needle"),
    _fact("home", "house", "box, mushroom, tree, car, boat, snail", "that people live in", "that has a roof and a door", "Which of these do people live in?", "!Where would a family live?", "!that a family would live in"),
    _fact("prickly", "cactus", f"{_SCISSORS}, pencil, star, saw, flower", "that has prickles", "that grows in the desert", "Which of these would prick your finger?", "!What grows where it hardly rains?", "!that grows where it hardly rains"),
    _fact("vase", "flower", "leaf, tree, cactus, heart", "that smells nice in a vase", "that bees visit", "Which of these would you put into a vase?", "!What would a bee visit?", "!that a bee would visit"),
    _fact("autumn", "leaf", "apple, flower, tree", "that falls from a tree in autumn", "that hangs on a branch until the wind takes [it|them]", "Which of these falls from trees in autumn?", "!What would you rake up in the garden?", "!that you would rake up in the garden"),
    _fact("winter", "snowman", "cloud, hat", "that children build in winter", "that is made of snow", "Which of these is built from snow?", "!What do children make when it has snowed?", "!that children make when it has snowed"),
    _fact("day", "sun", "moon, star, cloud, lamp", "that warms the day", "that rises in the morning", "Which of these rises in the morning?", "!What makes the day bright?", "!that makes the day bright"),
    _fact("night", "moon", "star, sun, lamp, cloud", "that shines at night and can be half or full", "that a rocket could land on", "Which of these shines at night?", "!What goes from full to new in a month?", "!that goes from full to new in a month"),
    _fact("love", "heart", "flower, envelope, present", "that stands for love", "the sign of love", "Which of these stands for love?", "!What would you draw on a love letter?", "!that you would draw on a love letter"),
    _fact("points", "arrow", "pencil, hammer, triangle", "that shows a direction", "that points somewhere", "Which of these shows the way?", "!What would be on a road sign to show the way?", "!that would show the way on a road sign"),
    _fact("three corners", "triangle", "arrow, kite, umbrella, house, tree, boat", "that has exactly three corners", "that has three straight sides", "Which of these has three corners?", "!What has just three sides?", "!that has just three sides"),
    _fact("six corners", "hexagon", "box, cross, house", "that has six equal sides", "that looks like a cell of a honeycomb", "Which of these has six sides?", "!What has as many sides as a honeycomb cell?", "!that has as many corners as a dice has faces"),
    _fact("four corners", "square", "box, present, book, envelope, kite, phone, drum, table, house, shirt", "that has four equal sides", "that has four right angles and equal sides", "Which of these has four equal sides?", "!What has all four sides the same?", "!that has all four sides the same"),
    _fact("hollow", "ring", f"cup, {_SCISSORS}, {_GLASSES}, bicycle, key, moon, ladder, bucket, saw, box, hat, chair, bottle, umbrella", "that has a big hole in the middle", "that you could look through the middle of", "Which of these has a hole in the middle?", "!What is empty in its middle?", "!that is empty in its middle"),
    _fact("forest", "mushroom", "tree, leaf, snail, bird, flower", "that you pick in a damp forest", "that has a cap and a stem", "Which of these would you pick in the forest?", "!What grows among the trees after rain?", "!that grows among the trees after rain"),
    _fact("twinkles", "star", "sun, moon, flower", "that has five sharp points", "that could sit on top of a Christmas tree", "Which of these has five points?", "!What has points all around, five of them?", "!that has points all around, five of them"),
    _fact("plus", "cross", "star", "that looks like a plus sign", "that marks the door of a pharmacy", "Which of these looks like a plus sign?", "!What has the look of the sign for adding numbers?", "!that has the look of the sign for adding numbers"),
    _fact("shape", _FLAT, "ball, moon, box, sun, leaf, kite", "that [is a plain shape|are plain shapes] and no real [thing|things]", "the plain [shape|shapes]", "Which of these [is a plain shape|are plain shapes]?",
          "!that [is|are] nothing but [a shape|shapes]", "!Which [one is just a shape|ones are just shapes]?", noun=("plain shape", "plain shapes")),
)  # fmt: skip
FACTS: dict[str, Fact] = {fact.name: fact for fact in _ALL}


def known(kind: str, fact: str) -> bool | None:
    """Whether ``fact`` is true of ``kind``; None where people could disagree."""
    entry = FACTS[fact]
    return True if kind in entry.yes else None if kind in entry.maybe else False


CAPABILITIES: dict[str, tuple[str, ...]] = {
    kind: tuple(fact.name for fact in _ALL if kind in fact.yes) for kind in KINDS
}
"""For each kind of object the names of the facts that are true of it."""
