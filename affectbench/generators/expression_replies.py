"""Parts of replies that carry an emotion, or none: pure data, all written for this project.

A reply is a clause on the topic ({it}), or a lead on the topic and a closing clause, and maybe another
closing clause or a cry. Every fourth part of each list is held out (``expressions.parts``). Clauses begin in
lower case and fit behind "and".
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["LEADS", "NONE", "VOICES", "Voice"]

NONE: Final = "none"


@dataclass(frozen=True)
class Voice:
    """Parts of the replies of one emotion."""

    cries: tuple[str, ...]
    topics: tuple[str, ...]
    closers: tuple[str, ...]


LEADS: Final = (
    "When I think of {it},", "As for {it},", "Speaking of {it},", "After all this with {it},",
    "Now that I know about {it},", "With regard to {it},", "Since you mention {it},",
    "Ever since I heard of {it},", "Because of {it},", "Thanks to {it},", "With {it} on my mind,",
    "To be honest about {it},", "Looking at {it},", "Now about {it}:", "The thing with {it} is that",
    "It is because of {it} that",
)  # fmt: skip
"""Beginnings that fit any emotion and none; a closing clause follows."""

VOICES: Final[dict[str, Voice]] = {
    "anger": Voice(
        cries=(
            "How dare they!", "Enough is enough!", "This is an insult!", "Unbelievable nerve!",
            "No, not with me!", "That does it!", "I will not stand for this!",
            "Who do they think they are!", "Stop it right now!", "I am furious!",
            "Do not test my patience!", "What a cheek!", "This makes me angry!", "Shame on them!",
            "They have gone too far!", "Curse the lot of them!",
        ),
        topics=(
            "I have had enough of {it}", "I want somebody to answer for {it}",
            "I slammed the door because of {it}", "nobody gets to insult me over {it}",
            "I am furious about {it}", "{it} made my blood boil",
            "I could yell at everyone who had a hand in {it}",
            "I will not put up with {it} one minute longer", "they pushed me too far with {it}",
            "whoever was behind {it} will hear from me", "I am angry about {it}",
            "I clenched both fists over {it}", "I demand an apology for {it}",
            "they had no right to bother me with {it}", "I swore out loud about {it}",
            "this nonsense about {it} has to stop", "{it} left me in a rage",
            "I banged my fist on the table over {it}", "I shouted at the wall because of {it}",
            "how dare anyone trouble me with {it}", "I am fuming about {it}", "they are to blame for {it}",
            "I threw my pen across the room over {it}", "it is an outrage what they did with {it}",
            "my jaw locked tight over {it}", "I will fight them over {it}",
            "they think they can push me around with {it}", "I have a few hard words to say about {it}",
        ),
        closers=(
            "somebody will pay for this", "I will not let this go", "they had better apologise at once",
            "my patience is over", "I want to yell at them all", "they always do this to me",
            "I could kick the door down", "nobody treats me like that", "my rage will not cool down",
            "I will file a complaint and shout if I must", "they have no respect at all",
            "I am boiling inside", "they will be sorry that they crossed me",
            "I slammed my fist on the desk", "I am mad at all of them",
            "I demand that this stops right now",
        ),
    ),
    "sadness": Voice(
        cries=(
            "Oh, my heart sinks.", "I could just cry.", "It hurts so much.", "I feel so empty.",
            "I am so sad.", "What a loss.", "There is nothing left to say.", "My eyes are full of tears.",
            "Alas.", "I miss how things used to be.", "All the light has gone.", "I have no strength left.",
            "Such sorrow.", "I feel so alone.", "It is all over now.", "Everything seems grey.",
        ),
        topics=(
            "I wept over {it}", "{it} broke my heart", "I cannot stop crying about {it}",
            "thinking of {it} only brings tears", "I am sad about {it}", "I lay awake and mourned {it}",
            "{it} left me hollow", "I sat alone in the dark after {it}",
            "my heart is heavy because of {it}", "I wish I could undo {it}",
            "nothing can comfort me after {it}", "I feel deep sorrow over {it}",
            "I stared at the floor and thought of {it}", "{it} reminds me of all that I have lost",
            "I sobbed into my pillow over {it}", "it aches whenever I think of {it}",
            "I am heartbroken about {it}", "even {it} cannot lift this weight from me",
            "I had so much hope for {it}, and it is gone", "I only sigh when I hear of {it}",
            "I felt small and lonely beside {it}", "{it} took the last light out of my day",
            "I am unhappy because of {it}", "tears ran down my face over {it}",
            "I lost all hope because of {it}", "I feel like giving up after {it}",
            "in the end {it} will fade like all the rest", "I could not eat a bite after {it}",
        ),
        closers=(
            "I will cry myself to sleep", "nothing will ever be the same", "I have never felt so lonely",
            "my heart is broken", "I do not know how to go on", "the tears keep coming",
            "I only want to be left alone in the dark", "everything good comes to an end",
            "I am lost in grief", "the emptiness will not leave me", "I miss the days that are gone",
            "I have no hope left", "I sit here and weep", "it hurts more with every hour",
            "it makes me miserable", "I can hardly get out of bed",
        ),
    ),
    "happiness": Voice(
        cries=(
            "Hooray!", "What a wonderful day!", "This is lovely!", "I am so happy!", "Yes, yes, yes!",
            "Life is good!", "How marvellous!", "I could hug the world!", "Time to celebrate!",
            "Wonderful news!", "I cannot stop smiling!", "Such joy!", "Everything is perfect!",
            "How sweet!", "Let us dance!", "What a treat!",
        ),
        topics=(
            "I am smiling from ear to ear about {it}", "{it} made my day", "I could sing about {it}",
            "I danced around the kitchen because of {it}", "I am happy about {it}",
            "I love everything about {it}", "I laughed with pleasure over {it}",
            "{it} fills my heart with sunshine", "I want to celebrate {it} with a big cake",
            "I am so grateful for {it}", "I am delighted with {it}",
            "I clapped my hands when I heard of {it}", "I feel warm all over thanks to {it}",
            "{it} could not have been lovelier", "I jumped for joy over {it}", "I raise my glass to {it}",
            "I hummed a merry tune about {it}", "I will always treasure {it}", "I am thrilled about {it}",
            "I beamed all the way home because of {it}", "I hugged everyone because of {it}",
            "thanks to {it} the whole world looks bright", "I am glad about {it}",
            "I would not trade {it} for anything", "I cheered out loud for {it}",
            "I feel blessed to have {it}", "{it} was simply wonderful",
            "I told all my friends the good news about {it}",
        ),
        closers=(
            "I feel like dancing", "I am going to celebrate tonight", "life could not be better",
            "my heart is singing", "I have a big smile on my face", "everything is going so well",
            "I want to hug everybody", "the sun is shining for me", "I am bursting with joy",
            "I will laugh about it all day", "I feel so lucky", "this is the best day of the year",
            "I could jump up and down", "I am thankful for every minute", "it makes me happy",
            "I will bake a cake for everyone",
        ),
    ),
    "fear": Voice(
        cries=(
            "Oh no, please no!", "Help me!", "Something terrible is coming!", "I am so scared!",
            "Is anyone there?", "I cannot breathe!", "What if it all goes wrong?", "Hide, quickly!",
            "I have to get out of here!", "My hands are shaking!", "Did you hear that noise?",
            "I dare not look!", "I am afraid!", "We are in danger!", "Please do not leave me alone!",
            "My heart is racing!",
        ),
        topics=(
            "I tremble when I think of {it}", "what if {it} turns out to be dangerous",
            "I am afraid of {it}", "I hid under the blanket because of {it}",
            "{it} sent a chill down my spine", "I keep looking over my shoulder because of {it}",
            "I broke into a cold sweat over {it}", "I do not dare to go near {it}",
            "I am scared of what {it} will bring", "something awful could happen with {it}",
            "I lie awake and worry what {it} might do to us", "my knees went weak at {it}",
            "I checked the locks three times because of {it}", "I am terrified of {it}",
            "what if {it} is only the beginning", "my stomach tied itself in knots over {it}",
            "I want to run away from {it}", "I froze at the thought of {it}",
            "they will come after me because of {it}", "the thought of {it} fills me with dread",
            "I whispered a prayer about {it}", "I feel threatened by {it}",
            "I cannot stop shaking over {it}", "I see danger everywhere since {it}",
            "I turned pale because of {it}", "I nearly screamed because of {it}",
            "who knows what is lurking behind {it}", "I hold my breath and wait for {it} to end",
        ),
        closers=(
            "I do not feel safe any more", "what if they find me", "I want to hide somewhere",
            "my heart is pounding", "I cannot sleep without a light", "something bad is about to happen",
            "I keep trembling", "please let it be over soon", "I am in a panic",
            "I am locking all the doors", "the danger is closing in", "I jump at every sound",
            "nobody will be there to save me", "my legs are giving way", "I am frightened to death",
            "I shiver at every shadow",
        ),
    ),
    "surprise": Voice(
        cries=(
            "Wow!", "What, really?", "No way!", "I did not see that coming!", "Well, I never!",
            "Good heavens!", "Are you serious?", "I am speechless!", "Wait, what?", "What a surprise!",
            "Who would have thought?", "My jaw dropped!", "Hold on, is that true?", "Out of the blue!",
            "Goodness me!", "I am amazed!",
        ),
        topics=(
            "I never expected {it}", "I had to read about {it} twice to believe it",
            "{it} came out of nowhere", "I blinked twice at {it}", "I am surprised by {it}",
            "of all things I did not expect {it}", "my mouth fell open at {it}",
            "I still cannot believe {it}", "I gasped when I heard of {it}",
            "I had no idea that {it} could turn out like that", "{it} caught me completely off guard",
            "I am astonished by {it}", "I rubbed my eyes at {it}", "I nearly fell off my chair at {it}",
            "who could have guessed that about {it}", "I pinched myself because of {it}",
            "what a sudden turn with {it}", "I am amazed by {it}", "I raised both eyebrows at {it}",
            "I would have bet against {it}", "I stared in wonder at {it}", "suddenly there was {it}",
            "I was startled by {it}", "I dropped my cup when I heard of {it}",
            "it is incredible how things went with {it}", "I had to look at {it} again to be sure",
            "nobody warned me about {it}", "I cannot get over how unexpected {it} was",
        ),
        closers=(
            "I did not see it coming at all", "I can hardly believe it", "I am lost for words",
            "it came out of the blue", "I have to sit down for a moment",
            "that changes everything I thought I knew", "I keep asking if it is real",
            "nobody could have predicted this", "I am astounded", "my eyes are still wide open",
            "I would never have guessed", "it took me completely unawares", "I wonder what happens next",
            "I keep shaking my head in wonder", "what a surprising turn",
            "it was the last thing I expected",
        ),
    ),
    "disgust": Voice(
        cries=(
            "Ugh!", "Yuck!", "How vile!", "That is disgusting!", "It makes me sick!", "Take it away!",
            "What filth!", "I think I will throw up!", "Eww!", "That stinks!", "I feel ill!",
            "Keep that away from me!", "How gross!", "What a foul taste!", "I need to wash my hands!",
            "Pfui, rotten!",
        ),
        topics=(
            "I gagged at {it}", "{it} turned my stomach", "I would not touch {it} with gloves on",
            "I wrinkled my nose at {it}", "I am disgusted by {it}", "there is something slimy about {it}",
            "I want to scrub myself clean after {it}", "{it} left a foul taste in my mouth",
            "I had to look away from {it}", "everything about {it} smells rotten", "I find {it} revolting",
            "I held my nose over {it}", "I pushed {it} away like spoiled food", "I felt bile rise at {it}",
            "the stench of {it} clings to me", "I nearly vomited over {it}", "{it} made my skin crawl",
            "I spat on the ground because of {it}", "it is gross what they did with {it}",
            "I washed my hands twice after {it}", "I cannot stomach {it}", "I feel dirty because of {it}",
            "I find nothing but filth in {it}", "I shuddered at how sticky and vile {it} was",
            "I retched when I heard of {it}", "{it} belongs in the bin with the mouldy leftovers",
            "I was sick in the sink because of {it}", "I would rather eat worms than see {it} again",
        ),
        closers=(
            "I want to be sick", "I need a long shower", "the smell will not go away",
            "it makes my stomach turn", "somebody should throw it in the bin",
            "I cannot look at it without gagging", "I will scrub everything with soap",
            "it is foul from top to bottom", "it is simply revolting", "I have lost my appetite",
            "my skin is crawling", "I can still taste the filth",
            "I had to open a window for some clean air", "it is as slimy as an old sponge",
            "it fills me with disgust", "I wiped my hands on a cloth",
        ),
    ),
    NONE: Voice(
        cries=(
            "Noted.", "All right.", "Thanks for the update.", "Understood.", "So much for today.",
            "It is all as planned.", "Okay.", "This is for the record.", "It can wait until then.",
            "Nothing else is due.", "That is the current state.", "Good to know.", "The date stands.",
            "More on Monday.", "Here is where things stand.", "One point is open.",
        ),
        topics=(
            "I have written down the details of {it}", "I will check {it} again on Monday",
            "the next step for {it} is on my list", "I keep a copy of the papers on {it}",
            "I will get back to {it} when there is time", "{it} is part of the usual routine",
            "I noted the time and place for {it}", "I will send a short message about {it}",
            "there is nothing more to add about {it}", "I put {it} in the calendar",
            "I filed the note about {it} in the folder", "I will ask what is needed for {it}",
            "the information on {it} is complete", "I will deal with {it} in the normal order",
            "I made a list of the points on {it}", "I will wait for the reply about {it}",
            "I marked {it} as done", "I will continue with {it} as agreed",
            "I have the number and the date of {it}", "I will read the instructions for {it}",
            "{it} follows the standard procedure", "I will plan half an hour for {it}",
            "I added {it} to the weekly summary", "I compared {it} with the earlier entry",
            "I will bring the form for {it} next time", "I will let the others know about {it}",
            "the schedule for {it} stays the same", "I will keep {it} in the second drawer",
        ),
        closers=(
            "I will go on with the next item", "the rest stays as it is", "I will check back next week",
            "that is all for now", "the details are in the file", "I will follow the usual steps",
            "there is no need to change anything", "I will wait for the next message", "I wrote it down",
            "the appointment is at ten", "I will do the remaining part tomorrow", "the list is up to date",
            "I will use the regular form", "it should take about an hour", "I saved a copy",
            "we will see the result in due time",
        ),
    ),
}  # fmt: skip
