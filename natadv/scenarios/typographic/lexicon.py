"""Words that overlays say beside names of classes."""

from __future__ import annotations

THINGS: tuple[str, ...] = (
    "airplane", "anchor", "apple", "banana", "basket", "bed", "bell", "bicycle", "boat", "book",
    "bottle", "bread", "bridge", "bus", "button", "cake", "camera", "candle", "carrot", "castle",
    "chair", "cheese", "clock", "cloud", "coffee", "crown", "cup", "door", "drum", "feather",
    "flag", "flower", "fork", "garden", "glove", "guitar", "hammer", "hat", "house", "island",
    "kettle", "key", "kitchen", "ladder", "lamp", "lemon", "letter", "mirror", "moon", "mountain",
    "needle", "notebook", "orange", "paper", "pencil", "piano", "pillow", "pocket", "river",
    "rocket", "scissors", "ship", "shoe", "soup", "spoon", "table", "teapot", "ticket",
    "tomato", "train", "umbrella", "violin", "wallet", "window",
)  # fmt: skip
"""English nouns; which of them name no class depends on the classes."""

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "bear": ("Bär", "orso", "oso", "urso"),
    "bird": ("Vogel", "oiseau", "pájaro", "uccello"),
    "butterfly": ("Schmetterling", "papillon", "mariposa", "farfalla"),
    "car": ("macchina", "voiture", "coche", "bil"),
    "cat": ("Katze", "kissa", "gato", "gatto"),
    "chicken": ("Huhn", "poulet", "gallina", "frango"),
    "cow": ("Kuh", "vache", "vaca", "mucca"),
    "dog": ("Hund", "chien", "perro", "cachorro"),
    "elephant": ("Elefant", "éléphant", "elefante", "olifant"),
    "fish": ("Fisch", "poisson", "pez", "pesce"),
    "horse": ("Pferd", "cheval", "caballo", "cavallo"),
    "mouse": ("Maus", "souris", "ratón", "topo"),
    "rabbit": ("Kaninchen", "lapin", "conejo", "coniglio"),
    "sheep": ("Schaf", "mouton", "oveja", "pecora"),
    "spider": ("Spinne", "araignée", "araña", "ragno"),
    "squirrel": ("Eichhörnchen", "écureuil", "ardilla", "scoiattolo"),
    "tree": ("Baum", "arbre", "árbol", "albero"),
}
"""The same in other languages with Latin letters."""

LOOKALIKES: dict[str, str] = {
    "a": "àáâãäå", "b": "ßþ", "c": "ç", "d": "ð", "e": "èéêë", "i": "ìíîï", "l": "£", "m": "µ",
    "n": "ñ", "o": "òóôõöø", "p": "þ", "s": "§", "u": "ùúûü", "y": "ýÿ",
}  # fmt: skip
"""Letters of Latin-1 that look like plain ones."""

ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "t", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("", "k", "l", "m", "n", "p", "x")
