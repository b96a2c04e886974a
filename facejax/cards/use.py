"""The words on use that every card, export and command says; in full in docs/responsible_use.md."""

EU = "Inferring emotions at work and in schools is prohibited in the EU (AI Act, Art. 5(1)(f))."
USE = (
    "Reads the look of an expression and the perceived age, gender and ethnicity; not what a person feels or is. " + EU
)
# By task, or for all weights: what they are for, and what they must not be used for.
INTENDED = (
    "Research, teaching and measurement on photos whose use the people on them have agreed to or the law allows.",
    "Aggregate or assistive uses in which a person decides and every output is shown as an impression, not a fact.",
)
PROHIBITED = (
    "Decisions about a person: hiring, schooling, credit, insurance, policing, borders, health.",
    "Stating what somebody feels, thinks, intends or is, or whether they tell the truth.",
    "Watching or identifying people without their knowledge and a lawful reason.",
)
PROHIBITED_BY_TASK = {
    "emotion8": EU,
    "emotion7": EU,
    "valence_arousal": EU,
    "ethnicity": "Inferring the race of individuals from their faces is prohibited in the EU (AI Act, Art. 5(1)(g)); "
    "what remains is judging and balancing data sets that were lawfully obtained.",
}
LIMITS = {
    "age": "Ages are those of the training labels, which are noisy, the more so for children; an error of several "
    "years is usual, and nothing here may decide whether somebody is of age.",
    "gender": "Two classes, as the labels have them: how a face looks to annotators, not anybody's gender.",
    "ethnicity": "Five coarse classes of the labels; no property of people, and rare ones are hardly ever right.",
    "emotion8": "The look of posed or picked photos. Rare expressions (contempt, disgust, fear) are often missed.",
    "emotion7": "The look of posed or picked photos. Rare expressions (disgust, fear) are often missed.",
    "valence_arousal": "How pleasant and how excited an expression looks to annotators.",
}
