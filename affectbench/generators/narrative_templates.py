"""Sentence templates of the narrative toy language: pure data, all written for this benchmark.

Slots: {p} the person asked about, {o} somebody else, {thing}, {place}, {food}. Every emotion has 20 event
frames and 10 reactions. Their order fixes their split (see ``FRAME_SPLITS`` and ``REACTION_SPLITS``).
"""

from typing import Final

EMOTIONS: Final = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")

FRAME_SPLITS: Final = {"identification": (0, 8), "validation": (8, 12), "test": (12, 20)}
REACTION_SPLITS: Final = {"identification": (0, 5), "validation": (5, 7), "test": (7, 10)}
AMBIGUOUS_SPLITS: Final = {"identification": (0, 4), "validation": (4, 6), "test": (6, 10)}

PERSONS: Final = (
    "Mara", "Tom", "Lena", "Ivan", "Rosa", "Emil", "Nora", "Paul", "Ada", "Hugo",
    "Vera", "Finn", "Ines", "Karl", "Mila", "Otto", "Zoe", "Jan", "Ruth", "Leo",
)  # fmt: skip
THINGS: Final = ("cup", "bag", "hat", "book", "coat", "bike", "ring", "watch", "guitar", "chair")
PLACES: Final = (
    "kitchen",
    "garden",
    "school",
    "market",
    "station",
    "office",
    "library",
    "harbour",
    "barn",
    "park",
)
FOODS: Final = ("soup", "bread", "salad", "cheese", "rice", "stew")

FRAMES: Final[dict[str, tuple[str, ...]]] = {
    "anger": (
        "{o} lied to {p} about the {thing}", "{o} broke the {thing} of {p} on purpose",
        "{o} stole the {thing} from {p}", "{o} insulted {p} in front of the crowd",
        "{o} cheated {p} in the game", "{o} blamed {p} for the mistake",
        "{o} refused to pay {p}", "{o} pushed {p} out of the line",
        "{o} mocked {p} at the {place}", "{o} kept the {thing} that {p} lent",
        "{o} shouted at {p} without reason", "{o} ruined the work of {p}",
        "{o} cheated {p} over the {thing}", "{o} betrayed {p} to the boss",
        "{o} refused to help {p} on purpose", "{o} lied about {p} at the {place}",
        "{o} tore up the work of {p}", "{o} mocked {p} in front of the boss",
        "{o} broke a promise to {p}", "{o} stole the seat of {p}",
    ),
    "disgust": (
        "{p} found a maggot in the {food}", "{p} stepped in dog dirt",
        "{p} smelled rotten {food}", "{p} saw slime on the {thing}",
        "{p} drank sour milk", "{p} touched a sticky rag",
        "{p} saw mould on the {food}", "{p} sat next to a filthy bin",
        "{p} pulled hair from the drain", "{p} found a dead rat in the {place}",
        "{p} bit into rotten fruit", "{p} smelled the open sewer",
        "{p} found slime in the {food}", "{p} saw a maggot on the plate",
        "{p} stepped on a slug", "{p} cleaned the filthy drain",
        "{p} smelled vomit in the {place}", "{p} licked a mouldy spoon",
        "{p} saw flies on the {food}", "{p} found sticky hair in the {food}",
    ),
    "fear": (
        "{p} heard steps behind in the dark", "a wolf followed {p} through the {place}",
        "{p} hung from the high cliff", "a stranger with a knife chased {p}",
        "the lift with {p} began to fall", "{p} was lost in the dark {place}",
        "the brakes failed in the car of {p}", "{p} saw a snake near the bed",
        "{p} heard a growl in the dark", "smoke filled the room of {p}",
        "the ice cracked under {p}", "a stranger stared through the window at {p}",
        "a bear chased {p} to the cliff", "{p} woke to steps in the {place}",
        "the bridge shook under {p}", "a snake slid over the foot of {p}",
        "{p} was locked in a dark cellar", "a stranger aimed a gun at {p}",
        "the plane with {p} began to fall", "a storm threw the boat of {p}",
    ),
    "happiness": (
        "{p} won the first prize", "{p} got the dream job",
        "{o} married {p} in the {place}", "{p} danced at the party",
        "{p} passed the exam with honours", "{o} came home to {p} at last",
        "{o} gave {p} a puppy", "{p} won a trip to the sea",
        "{p} played in the warm sun", "{o} praised {p} warmly",
        "the team of {p} won the cup", "{p} held the new baby",
        "{p} won the big race", "{o} gave {p} a lovely gift",
        "{p} got a place at the dream school", "{o} sang for {p} at the party",
        "{p} married a dear friend", "{p} danced in the warm {place}",
        "the song of {p} got the first prize", "the puppy of {p} came home",
    ),
    "neutral": (
        "{p} put the {thing} on the shelf", "{p} walked to the {place} as usual",
        "{p} read the list of names", "{p} waited for the bus",
        "{p} wrote the date on the form", "{p} filled the bottle with water",
        "{p} closed the window", "{p} counted the chairs",
        "{p} sorted the papers", "{p} took the usual road",
        "{p} checked the clock", "{p} folded the towel",
        "{p} wrote a list at the {place}", "{p} moved the {thing} to the shelf",
        "{p} took the bus to the {place}", "{p} filled in the form",
        "{p} sorted the chairs in the {place}", "{p} read the usual paper",
        "{p} opened the window", "{p} carried water to the {place}",
    ),
    "sadness": (
        "the dog of {p} died", "{p} stood alone at the grave",
        "{o} left {p} for ever", "{p} lost the ring of a dead friend",
        "nobody came to the birthday of {p}", "{p} missed {o} every night",
        "the home of {p} burned down", "{p} read the last letter from {o}",
        "{p} buried the old cat", "{o} forgot the birthday of {p}",
        "{p} sat alone in the empty house", "the friend of {p} moved far away",
        "the friend of {p} died", "{p} sat alone at the funeral",
        "{o} left {p} without goodbye", "{p} lost the last photo of {o}",
        "{p} missed the old home", "{p} stood at the empty bed of {o}",
        "the old cat of {p} died", "{p} heard that {o} was gone for ever",
    ),
    "surprise": (
        "{o} jumped out of the cake before {p}", "{p} found a coin in the {thing}",
        "the {thing} of {p} began to talk", "snow fell on {p} in summer",
        "{p} met {o} abroad by chance", "a parrot greeted {p} by name",
        "{p} opened the box and it was empty", "the lights came on and {p} saw a crowd",
        "{p} saw a horse in the {place}", "{p} got a call from a lost twin",
        "the statue winked at {p}", "a stranger knew the name of {p}",
        "{p} met a twin by chance", "the statue before {p} began to talk",
        "a horse greeted {p} at the {place}", "{p} opened the {thing} and found gold",
        "snow fell on {p} in the {place}", "{p} saw {o} on television by chance",
        "the door opened itself before {p}", "a parrot knew the name of {p}",
    ),
}  # fmt: skip

REACTIONS: Final[dict[str, tuple[str, ...]]] = {
    "anger": (
        "{p} slammed the door", "{p} clenched both fists", "{p} shouted loudly", "{p} kicked the wall",
        "{p} went red and swore", "{p} stamped a foot", "{p} threw the plate",
        "{p} banged the table", "{p} snarled and glared", "{p} yelled back",
    ),
    "disgust": (
        "{p} gagged", "{p} wrinkled the nose", "{p} spat it out", "{p} felt sick",
        "{p} pushed it away", "{p} held the nose", "{p} turned away quickly",
        "{p} retched", "{p} grimaced at the smell", "{p} washed both hands twice",
    ),
    "fear": (
        "{p} trembled", "{p} hid under the table", "{p} ran for cover", "{p} froze and went pale",
        "{p} screamed for help", "{p} shook all over", "{p} backed away slowly",
        "{p} shivered and hid", "{p} held tight and prayed", "{p} broke into cold sweat",
    ),
    "happiness": (
        "{p} smiled brightly", "{p} laughed with joy", "{p} cheered", "{p} hugged everyone",
        "{p} sang aloud", "{p} beamed", "{p} clapped merrily",
        "{p} grinned widely", "{p} jumped for joy", "{p} hummed a merry tune",
    ),
    "neutral": (
        "{p} nodded", "{p} went on as usual", "{p} sat down", "{p} made a note",
        "{p} looked at the clock", "{p} said nothing special", "{p} took a seat",
        "{p} put the pen down", "{p} went on with work", "{p} looked at the list",
    ),
    "sadness": (
        "{p} wept", "{p} cried quietly", "{p} stared at the floor", "tears ran down the face of {p}",
        "{p} could not eat", "{p} sobbed", "{p} sighed deeply",
        "{p} cried all night", "{p} wiped away tears", "{p} lay in bed all day",
    ),
    "surprise": (
        "{p} gasped", "{p} blinked twice", "{p} raised both brows", "{p} dropped the cup",
        "{p} stared with open mouth", "{p} could not believe it", "{p} looked again",
        "{p} cried out in wonder", "{p} rubbed both eyes", "the jaw of {p} dropped",
    ),
}  # fmt: skip

AMBIGUOUS: Final[tuple[tuple[str, tuple[str, str]], ...]] = (
    ("{p} heard a bang behind the door", ("fear", "surprise")),
    ("{o} took the last seat from {p}", ("anger", "sadness")),
    ("{p} watched {o} eat a worm", ("disgust", "surprise")),
    ("{p} got a note from {o}", ("happiness", "neutral")),
    ("the dog of {p} ran away", ("sadness", "fear")),
    ("{p} waited long for {o}", ("anger", "neutral")),
    ("{o} did not call {p}", ("anger", "sadness")),
    ("a spider sat on the arm of {p}", ("fear", "disgust")),
    ("{p} got a box from {o}", ("surprise", "happiness")),
    ("{p} stood in the quiet {place}", ("neutral", "sadness")),
)

OPENINGS: Final = ("At noon", "On Monday", "Last week", "In spring", "One evening", "Before lunch")

TOOLS: Final = (
    ("knife", "cut the bread"), ("hammer", "hit the nail"), ("broom", "sweep the floor"),
    ("brush", "paint the fence"), ("kettle", "boil the tea"), ("needle", "sew the shirt"),
    ("rope", "tie the boat"), ("key", "unlock the gate"), ("lamp", "light the path"),
    ("spade", "dig the hole"), ("saw", "trim the log"), ("soap", "wash the dishes"),
    ("pen", "sign the card"), ("map", "find the way"), ("ladder", "reach the roof"),
    ("net", "catch the fish"), ("scale", "weigh the flour"), ("oven", "bake the pie"),
    ("axe", "split the wood"), ("ruler", "measure the line"), ("basket", "carry the apples"),
    ("match", "start the fire"), ("pump", "fill the tyre"), ("phone", "call the doctor"),
)  # fmt: skip
COLOURS: Final = ("red", "blue", "green", "white", "black", "brown")
HOURS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
OPEN_PROMPTS: Final = (
    "In the morning {p}", "The bus to the {place}", "{p} used the", "The {thing} was",
    "{p} carried the {thing} and", "After lunch {p} went", "To {use}, {p}", "The {place} opens at",
)  # fmt: skip
