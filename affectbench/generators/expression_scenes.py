"""Templates of everyday scenes for the expressive reference model: pure data, all written for this project.

A scene is a neutral first-person scenario and what came of it. Slots: {t} the matter, {p} the other person,
{when} a time. No template says how anybody feels.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["ADJECTIVES", "EVENTS", "SURNAMES", "THEMES", "TIMES", "VALENCES", "Theme"]

VALENCES: Final = ("positive", "neutral", "negative")


@dataclass(frozen=True)
class Theme:
    """Words of one theme: matters and people (nouns), scenarios, and events of each valence."""

    things: tuple[str, ...]
    people: tuple[str, ...]
    scenarios: tuple[str, ...]
    positive: tuple[str, ...]
    neutral: tuple[str, ...]
    negative: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


TIMES: Final = _words(
    "this morning, yesterday, last week, on Monday, on Friday afternoon, two days ago, after lunch, in the "
    "evening, before the holidays, at noon, earlier today, last month, on the first of May, right after "
    "breakfast, at the weekend, late on Thursday"
)
ADJECTIVES: Final = _words(
    "new, old, small, large, blue, green, second, first, revised, short, long, final, usual, spare, "
    "printed, heavy, yearly, weekly, local, shared"
)
SURNAMES: Final = _words(
    "Keller, Brandt, Osei, Novak, Lindqvist, Moreau, Tanaka, Haddad, Okafor, Petrov, Silva, Jansen, "
    "Kowalski, Rossi, Nguyen, Murphy, Schmid, Ivanova, Castillo, Demir, Larsen, Fischer, Bianchi, Farouk, "
    "Weber, Ndiaye"
)

THEMES: Final[dict[str, Theme]] = {
    "work": Theme(
        _words(
            "sales report, project plan, budget draft, client proposal, meeting agenda, training manual, "
            "shift plan, expense claim, product brochure, staff survey, quality checklist, contract draft, "
            "inventory list, design sketch, test protocol, customer file, travel request, holiday plan, "
            "printer order, office keyboard, newsletter, spreadsheet, payroll sheet, job description"
        ),
        _words("manager, supervisor, colleague, director, team leader, client, intern, accountant"),
        (
            "I finished {t} and sent it to {p} {when}", "I worked on {t} with {p} {when}",
            "I asked {p} to look through {t} {when}", "I put {t} on the desk of {p} {when}",
            "I presented {t} in the meeting with {p} {when}", "I updated {t} for the office {when}",
            "I took over {t} from {p} {when}", "I stored {t} in the folder that {p} had opened {when}",
        ),
        (
            "{p} praised {t} and offered me a larger role.",
            "{p} used {t} as the model for the entire department.",
            "The client signed at once after reading {t}.", "{p} gave me two free days for finishing {t}.",
        ),
        (
            "{p} added {t} to the agenda of the next meeting.", "{p} stored {t} with the other papers.",
            "{p} said that {t} would be checked in due course.",
            "The office passed {t} on to the next floor.",
        ),
        (
            "{p} rejected {t} and told me to start again.", "{p} lost {t} and said that it was my mistake.",
            "The client cancelled the order because of {t}.",
            "{p} put another name on {t} before the meeting.",
        ),
    ),
    "school": Theme(
        _words(
            "history essay, lab report, group poster, reading list, thesis chapter, maths homework, "
            "language exam, science project, scholarship form, lecture recording, chemistry notebook, "
            "seminar paper, class timetable, library book, grammar quiz, art portfolio, biology slide, "
            "internship letter, geography map, final transcript, debate speech, exam booklet, music "
            "assignment, study guide"
        ),
        _words("teacher, professor, tutor, classmate, librarian, principal, lecturer, lab partner"),
        (
            "I handed in {t} to {p} {when}", "I prepared {t} together with {p} {when}",
            "I asked {p} a question about {t} {when}", "I read {t} in the library {when}",
            "I presented {t} to the class of {p} {when}", "I copied the notes for {t} {when}",
            "I uploaded {t} to the course page {when}", "I went through {t} again with {p} {when}",
        ),
        (
            "{p} gave {t} the best mark of the year.", "{p} read {t} aloud as a good example.",
            "The school chose {t} for its yearly prize.",
            "{p} said that {t} earned me a place in the course.",
        ),
        (
            "{p} collected {t} with all the others.", "{p} said that the marks for {t} come in two weeks.",
            "The course page showed that {t} had arrived.", "{p} moved {t} to the next lesson.",
        ),
        (
            "{p} failed {t} because one page was missing.",
            "{p} said that {t} had to be done again by tomorrow.",
            "The course page deleted {t} an hour before the deadline.", "{p} accused me of copying {t}.",
        ),
    ),
    "relationships": Theme(
        _words(
            "birthday dinner, phone call, wedding invitation, family photo, picnic basket, letter, game "
            "night, house key, anniversary card, baby blanket, recipe book, cinema evening, borrowed "
            "bicycle, guest list, garden party, old secret, chess set, road trip, knitted scarf, concert "
            "ticket, shared playlist, moving box, holiday postcard, coffee date"
        ),
        _words("sister, brother, neighbour, cousin, best friend, mother, uncle, roommate"),
        (
            "I planned {t} with {p} {when}", "I talked to {p} about {t} {when}",
            "I brought {t} to {p} {when}", "I sent {p} a message about {t} {when}",
            "I met {p} because of {t} {when}", "I lent {t} to {p} {when}",
            "I promised {p} to take care of {t} {when}", "I showed {t} to {p} {when}",
        ),
        (
            "{p} hugged me and said that {t} was the nicest thing all year.",
            "{p} kept {t} and invited me for Sunday.", "{p} told everyone how much {t} had meant.",
            "{p} came with flowers because of {t}.",
        ),
        (
            "{p} thanked me for {t} and went back to the kitchen.", "{p} wrote down the date of {t}.",
            "{p} said that {t} was fine either way.", "{p} put {t} on the shelf beside the door.",
        ),
        (
            "{p} forgot {t} and did not answer my calls.", "{p} told strangers about {t} behind my back.",
            "{p} broke off contact because of {t}.", "{p} threw {t} away without a word.",
        ),
    ),
    "shopping": Theme(
        _words(
            "winter coat, kitchen mixer, gift voucher, desk lamp, pair of boots, phone case, garden chair, "
            "online order, coffee machine, discount code, wool sweater, toaster, parcel, receipt, refund, "
            "leather belt, warranty card, vacuum cleaner, picture frame, box of tea, camera bag, shopping "
            "list, travel pillow, bread knife"
        ),
        _words("shop assistant, cashier, courier, salesman, store manager, support agent, seller, tailor"),
        (
            "I ordered {t} from the shop {when}", "I asked {p} for {t} {when}",
            "I returned {t} to {p} {when}", "I compared the prices of {t} {when}",
            "I paid {p} for {t} {when}", "I wrote to {p} about {t} {when}",
            "I picked up {t} at the counter {when}", "I had {t} repaired by {p} {when}",
        ),
        (
            "{p} gave me {t} for half the price.", "{p} replaced {t} at once and added a present.",
            "The shop delivered {t} two days early.",
            "{p} found the last {t} in the back room just for me.",
        ),
        (
            "{p} scanned {t} and printed the receipt.", "{p} said that {t} would be ready on Tuesday.",
            "The shop confirmed {t} by email.", "{p} put {t} into a paper bag.",
        ),
        (
            "{p} refused to take back {t} although it was broken.", "The shop charged me twice for {t}.",
            "{p} sent {t} to the wrong address and hung up.", "{p} said that {t} was sold to someone else.",
        ),
    ),
    "offices": Theme(
        _words(
            "passport form, parking permit, tax return, library card, building permit, voting card, "
            "residence paper, birth certificate, bus pass, dog licence, pension letter, street plan, waste "
            "calendar, court notice, noise complaint, tree permit, marriage certificate, bank statement, "
            "customs form, housing benefit form, school registration, driving licence, water bill, "
            "appointment slip"
        ),
        _words("clerk, officer, mayor, inspector, registrar, caseworker, receptionist, judge"),
        (
            "I handed {t} to {p} at the town hall {when}", "I applied for {t} at the office {when}",
            "I called {p} about {t} {when}", "I waited in line with {t} {when}",
            "I filled in {t} at the counter {when}", "I brought {t} back to {p} {when}",
            "I asked {p} to explain {t} {when}", "I sent {t} by registered mail {when}",
        ),
        (
            "{p} approved {t} on the spot and waived the fee.",
            "{p} stayed after closing time to finish {t}.",
            "The office sent {t} back within a day, stamped and complete.",
            "{p} found a mistake in {t} in my favour.",
        ),
        (
            "{p} stamped {t} and gave me a number.", "{p} said that {t} takes the usual four weeks.",
            "The office put {t} into the file.", "{p} pointed to the counter for {t}.",
        ),
        (
            "{p} refused {t} because of a missing signature.", "The office fined me for {t}.",
            "{p} closed the counter while I held out {t}.", "{p} lost {t} and asked for all papers again.",
        ),
    ),
    "health": Theme(
        _words(
            "blood test, prescription, dental check, knee brace, eye exam, allergy list, vaccination card, "
            "sleep diary, physiotherapy plan, hearing test, insurance card, diet plan, heart scan, pill "
            "box, fitness app, cough syrup, therapy session, skin cream, running schedule, x-ray picture, "
            "walking stick, health form, thermometer, yoga class"
        ),
        _words("doctor, nurse, dentist, pharmacist, therapist, surgeon, trainer, optician"),
        (
            "I went to {p} for {t} {when}", "I collected {t} from {p} {when}",
            "I talked about {t} with {p} {when}", "I started with {t} {when}",
            "I asked {p} for the results of {t} {when}", "I booked {t} at the clinic {when}",
            "I wrote down the times for {t} {when}", "I took {t} along to {p} {when}",
        ),
        (
            "{p} said that {t} showed a full recovery.", "{p} told me that I no longer need {t}.",
            "The clinic paid for {t} and called to congratulate.",
            "{p} said that {t} had never looked so good.",
        ),
        (
            "{p} noted {t} in the file.", "{p} said that the next appointment for {t} is in June.",
            "The clinic sent a copy of {t}.", "{p} asked me to go on with {t} as before.",
        ),
        (
            "{p} mixed up {t} with that of another patient.",
            "{p} said that {t} looked much worse than before.",
            "The clinic cancelled {t} for the third time.", "{p} found mould in the box with {t}.",
        ),
    ),
    "housing": Theme(
        _words(
            "rental contract, kitchen sink, heating bill, front door, balcony plant, washing machine, "
            "garage key, paint bucket, bathroom mirror, moving date, water pipe, doorbell, bookshelf, "
            "cellar light, roof window, mailbox, wooden floor, curtain rail, smoke alarm, garden fence, "
            "carpet, oven, elevator, house rule"
        ),
        _words("landlord, plumber, caretaker, electrician, flatmate, painter, house manager, tenant"),
        (
            "I talked to {p} about {t} {when}", "I had {t} checked by {p} {when}", "I cleaned {t} {when}",
            "I wrote to {p} because of {t} {when}", "I measured {t} for the flat {when}",
            "I asked {p} to bring {t} {when}", "I repaired {t} with {p} {when}",
            "I moved {t} to the other side {when}",
        ),
        (
            "{p} repaired {t} within an hour and asked for nothing.",
            "{p} lowered the rent because of {t}.", "{p} paid for {t} and thanked me for the care.",
            "The house gave me a prize for {t}.",
        ),
        (
            "{p} looked at {t} and made a note.", "{p} said that {t} is as it should be.",
            "{p} put a sign beside {t}.", "The house added {t} to the list for spring.",
        ),
        (
            "{p} broke {t} and left without a word.", "{p} raised the rent because of {t}.",
            "Dirty water ran over {t} all night.", "{p} gave me notice because of {t}.",
        ),
    ),
    "travel": Theme(
        _words(
            "train ticket, hotel booking, suitcase, rental car, boarding pass, window seat, ferry "
            "crossing, city map, bus connection, tour booking, airport shuttle, travel guide, night train, "
            "camping tent, museum pass, bicycle rack, seat reservation, mountain hut, taxi ride, hand "
            "luggage, flight upgrade, visa page, beach towel, walking tour"
        ),
        _words("driver, pilot, conductor, tour guide, hotel clerk, steward, travel agent, passenger"),
        (
            "I booked {t} for the trip {when}", "I showed {t} to {p} {when}",
            "I asked {p} about {t} {when}", "I packed for the trip and checked {t} {when}",
            "I changed {t} with {p} {when}", "I waited at the station with {t} {when}",
            "I wrote to {p} about {t} {when}", "I carried {t} through the station {when}",
        ),
        (
            "{p} gave me {t} without asking for money.",
            "{p} carried {t} and showed us the best view in town.",
            "The company paid for {t} and added a free night.", "{p} held the train until I had {t}.",
        ),
        (
            "{p} checked {t} and walked on.", "{p} said that {t} is valid until the evening.",
            "The screen showed {t} with the usual times.", "{p} wrote the number of {t} on a list.",
        ),
        (
            "{p} gave {t} to somebody else.",
            "The company cancelled {t} at midnight without telling anyone.",
            "{p} left while {t} was still on the platform.",
            "{p} said that {t} was a fake and called a guard.",
        ),
    ),
}  # fmt: skip

EVENTS: Final[dict[str, tuple[str, ...]]] = {
    "positive": (
        "{p} said that {t} was the best in years.", "{p} thanked me twice for {t}.",
        "Everything about {t} went better than planned.", "{p} recommended me to others because of {t}.",
        "The matter of {t} was settled in my favour within an hour.",
        "{p} offered help with {t} without being asked.",
    ),
    "neutral": (
        "{p} will come back to {t} next week.", "{p} confirmed the date for {t}.",
        "Nothing has changed about {t} so far.", "{p} asked one question about {t} and moved on.",
        "A short message said that {t} had been received.", "{p} put {t} on the list with the others.",
    ),
    "negative": (
        "{p} complained about {t} in front of everyone.", "{p} never answered about {t}.",
        "Everything about {t} went wrong at the last minute.", "{p} laughed at {t} and walked away.",
        "A stain ran across {t}, and nobody would clean it.", "{p} asked for more money because of {t}.",
    ),
}  # fmt: skip
