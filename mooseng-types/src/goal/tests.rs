//! Goals as people write them, and any that can be written.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::Label;

fn labels(of: &str) -> Labels {
    Labels::parse(&of.split(' ').filter(|label| !label.is_empty()).collect::<Vec<_>>()).unwrap()
}

fn parse(text: &str) -> Goal {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn each_goal_is_shown_in_its_one_form() {
    for (given, shown) in [
        ("*", "*"),
        ("1", "*"),
        ("2*", "2"),
        ("*,*", "2"),
        ("A,B", "A,B"),
        ("A, B ,*,*", "A,B,2"),
        ("3BC", "3BC"),
        ("3 B & C", "3BC"),
        ("A(X+Y)", "A[X+Y]"),
        ("[AB]+[C+D]", "AB+C+D"),
        ("!!A!B", "A!B"),
        ("![A+B],![AB],!A", "![A+B],![AB],!A"),
        ("ssd&rack-friendly,A&ssd", "ssd&rack-friendly,A&ssd"),
        ("2ssd+hdd", "2ssd+hdd"),
        ("!ssd&A", "!ssd&A"),
        ("ssd[A+B]!x", "ssd&[A+B]!x"),
        ("2/[I]", "2/[IP]"),
        ("2/[R]:s", "2/[RACK]:strict"),
        ("A,B/[REGION]:d", "A,B/[REGION]:std"),
        ("3/ABX-Z:l", "3/ABX-Z:loose"),
        ("3/X-Z+ssd+hdd+A+X", "3/AX-Z+hdd+ssd"),
        ("2/ssd", "2/ssd"),
        ("9A:loose", "9A:loose"),
    ] {
        let goal = parse(given);
        assert_eq!(goal.to_string(), shown, "{given}");
        assert_eq!(parse(shown), goal, "{shown}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (given, at, error) in [
        ("", 0, "at character 1: expected a label, ! or [, found the end"),
        ("A,", 2, "at character 3: expected a label, ! or [, found the end"),
        ("A+*", 2, "at character 3: expected a label, ! or [, found '*'"),
        ("A;B", 1, "at character 2: expected a label, or one of & + , / :, found ';'"),
        ("[A+B", 4, "at character 5: expected ], found the end"),
        ("(A]", 2, "at character 3: expected ), found ']'"),
        ("ssdA", 3, "at character 4: expected & between a word and another label, found 'A'"),
        ("A ssd", 2, "at character 3: expected & between a word and another label, found 's'"),
        ("ssd-", 0, "at character 1: a label has at most 32 characters and ends in a letter or a digit"),
        ("0", 0, "at character 1: expected a number above 0, found '0'"),
        ("10", 0, "at character 1: more than 9 copies"),
        ("5A,5B", 3, "at character 4: more than 9 copies"),
        ("A/[X]", 3, "at character 4: expected IP, RACK or REGION, found 'X'"),
        ("A/Z-X", 4, "at character 5: a range goes from a letter to a later one"),
        ("A/ssdX", 5, "at character 6: expected a capital letter, + or :, found 'X'"),
        ("A/B,C", 3, "at character 4: expected a capital letter, + or :, found ','"),
        ("A:x", 2, "at character 3: expected loose, std or strict, found 'x'"),
        ("A:s/B", 3, "at character 4: expected the end, found '/'"),
        ("A:é", 2, "at character 3: expected loose, std or strict, found 'é'"),
        ("!!!!!!!!!A", 8, "at character 9: more than 8 brackets and negations within each other"),
    ] {
        let found = given.parse::<Goal>().unwrap_err();
        assert_eq!((found.at, found.to_string().as_str()), (at, error), "{given}");
    }
    let long = vec!["A"; 200].join("+");
    assert_eq!(long.parse::<Goal>().unwrap_err().problem, GoalProblem::TooLong);
    // Shown, it would be four bytes longer.
    let text = format!("{}:l", vec!["A"; 127].join("+"));
    assert_eq!((text.len(), text.parse::<Goal>().unwrap_err().problem), (255, GoalProblem::TooLong));
}

#[test]
fn a_code_is_understood_and_refused() {
    let coded = |text: &str| text.parse::<Goal>().unwrap_err().problem;
    let code = |data, parity| GoalProblem::ErasureCoding { data, parity };
    assert_eq!(coded("@8+2"), code(Some(8), 2));
    assert_eq!(coded("@2"), code(None, 2));
    assert_eq!(coded("@8+2,A[X+Y]/[RACK]:s"), code(Some(8), 2));
    assert_eq!(coded("@4+1,S,H"), code(Some(4), 1));
    for wrong in ["@", "@x", "@8+", "@33+1", "@8+17", "@20", "@8+2,", "@8+2x"] {
        assert!(!matches!(coded(wrong), GoalProblem::ErasureCoding { .. }), "{wrong}");
    }
}

#[test]
fn expressions_match_by_their_labels() {
    for (goal, server, right) in [
        ("*", "", true),
        ("A", "A B", true),
        ("A", "B", false),
        ("AB", "A", false),
        ("A+B", "B", true),
        ("!A", "", true),
        ("!A", "A", false),
        ("A[X+Y]", "A Y", true),
        ("A[X+Y]", "X Y", false),
        ("AB+C", "C", true),
        ("ssd&!A", "ssd", true),
        ("ssd&!A", "ssd A", false),
        ("rack-friendly", "rack friendly", false),
    ] {
        assert_eq!(parse(goal).copies()[0].matches(&labels(server)), right, "{goal} on {server}");
        assert_eq!(parse(goal).wants(&labels(server)), right);
    }
    let listed = parse("2/BX-Z");
    let label = |server| listed.distinguish().unwrap().label_of(&labels(server)).map(Label::as_str);
    assert_eq!((label("Y Z"), label("B Z"), label("A")), (Some("Y"), Some("B"), None));
}

/// The naive reading of an expression: the text is made beside its meaning.
#[derive(Clone, Debug)]
enum Written {
    Label(&'static str),
    Not(Box<Written>),
    And(Vec<Written>),
    Or(Vec<Written>),
}

const LABELS: [&str; 5] = ["A", "B", "Z", "ssd", "rack-friendly"];

fn written() -> impl Strategy<Value = Written> {
    let leaf = prop::sample::select(&LABELS[..]).prop_map(Written::Label);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|of| Written::Not(Box::new(of))),
            vec(inner.clone(), 1..4).prop_map(Written::And),
            vec(inner, 1..4).prop_map(Written::Or),
        ]
    })
}

impl Written {
    fn text(&self) -> String {
        let join = |parts: &[Self], by| parts.iter().map(Self::text).collect::<Vec<_>>().join(by);
        match self {
            Self::Label(label) => (*label).to_owned(),
            Self::Not(inner) => format!("!({})", inner.text()),
            Self::And(parts) => format!("[{}]", join(parts, "&")),
            Self::Or(parts) => format!("( {} )", join(parts, " + ")),
        }
    }

    fn holds(&self, labels: &[&str]) -> bool {
        match self {
            Self::Label(label) => labels.contains(label),
            Self::Not(inner) => !inner.holds(labels),
            Self::And(parts) => parts.iter().all(|part| part.holds(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(labels)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn an_expression_means_what_it_says_and_is_read_back_from_what_is_shown(
        written in vec((1u8..3, written()), 1..4),
        ending in prop::sample::select(&["", "/[IP]", "/AX-Z+ssd:s", ":l"][..]),
        server in prop::sample::subsequence(&LABELS[..], 0..=LABELS.len()),
    ) {
        let texts: Vec<String> = written.iter().map(|(count, of)| format!("{count}{}", of.text())).collect();
        let text = texts.join(",") + ending;
        prop_assume!(text.len() <= GOAL_LENGTH_MAX);
        let goal: Goal = match text.parse() {
            Err(GoalError { problem: GoalProblem::TooDeep | GoalProblem::TooLong, .. }) => return Ok(()),
            goal => goal.unwrap(),
        };
        let has = Labels::parse(&server).unwrap();
        let mut copies = goal.copies().iter();
        for (count, of) in &written {
            for copy in copies.by_ref().take((*count).into()) {
                prop_assert_eq!(copy.matches(&has), of.holds(&server), "{} on {:?}", of.text(), server);
            }
        }
        prop_assert_eq!(copies.len(), 0);
        prop_assert_eq!(goal.to_string().parse(), Ok(goal));
    }

    #[test]
    fn whatever_is_taken_is_read_back_from_what_is_shown(text in "[A-C@a-b!+&,*0-9:/\\[\\]()IPR lsd-]{0,24}") {
        if let Ok(goal) = text.parse::<Goal>() {
            prop_assert!((1..=COPIES_MAX).contains(&goal.copies().len()));
            prop_assert_eq!(goal.to_string().parse(), Ok(goal));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
        drop(text.parse::<Goal>());
    }
}
