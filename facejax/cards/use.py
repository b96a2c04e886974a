"""Texts on intended and prohibited use for cards, exports and commands; the full text is docs/responsible_use.md."""

EU = "Inferring emotions at work and in schools is prohibited in the EU (AI Act, Art. 5(1)(f))."
USE = "Estimates apparent expression and perceived age, gender and ethnicity, not what a person feels or is. " + EU
# Intended and prohibited uses, for all weights or by task.
INTENDED = (
    "Research, teaching and measurement on photos whose subjects have consented to it, or whose use the law allows.",
    "Aggregate or assistive uses in which a person decides and every output is shown as an impression, not a fact.",
)
PROHIBITED = (
    "Decisions about a person: hiring, schooling, credit, insurance, policing, borders, health.",
    "Claims about what somebody feels, thinks, intends or is, or whether they are telling the truth.",
    "Monitoring or identifying people without both their knowledge and a lawful reason.",
)
PROHIBITED_BY_TASK = {
    "emotion8": EU,
    "emotion7": EU,
    "valence_arousal": EU,
    "ethnicity": "Inferring the race of individuals from their faces is prohibited in the EU (AI Act, Art. 5(1)(g)); "
    "what remains is auditing and balancing lawfully obtained datasets.",
}
LIMITS = {
    "age": "Age labels in the training data are noisy, especially for children, and errors of several years are "
    "usual. Never use the output to decide whether somebody is of age.",
    "gender": "Two classes, as in the labels: how a face looks to annotators, not a person's gender.",
    "ethnicity": "Five coarse classes from the labels, not a property of people; rare classes are hardly ever right.",
    "emotion8": "Expressions as in posed or hand-picked photos. Rare ones (contempt, disgust, fear) are often missed.",
    "emotion7": "Expressions as in posed or hand-picked photos. Rare ones (disgust, fear) are often missed.",
    "valence_arousal": "How pleasant and how excited an expression looks to annotators.",
}
