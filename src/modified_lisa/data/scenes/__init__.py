"""Synthetic scenes with exact masks and queries that need reasoning: the bundled stand-in for ReasonSeg.

kinds, drawings_*   the catalogue of objects and what they look like
facts               what each is for and can do
casting, layout     which objects meet in a scene, and where they stand
render              the picture and the facts about it (`make_scene`)
judge, groups       what is true of the objects, and how to speak of them
queries, builders_* what is asked and what answers it (`make_queries`)
wordings, speaker   the words
held_out            what training never sees
describe            captions, questions and answers in words
generate            the folder writer
"""

from modified_lisa.data.scenes.describe import describe
from modified_lisa.data.scenes.facts import CAPABILITIES
from modified_lisa.data.scenes.generate import generate, make_sample
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.queries import QUERY_KINDS, Query, make_queries
from modified_lisa.data.scenes.render import make_scene
from modified_lisa.data.scenes.scene import Scene, SceneObject

__all__ = [
    "CAPABILITIES",
    "KINDS",
    "QUERY_KINDS",
    "Query",
    "Scene",
    "SceneObject",
    "describe",
    "generate",
    "make_queries",
    "make_sample",
    "make_scene",
]
