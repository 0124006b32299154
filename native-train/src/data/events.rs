//! Interactions while they are collected: a few numbers each, however long the ids are.

use std::collections::HashMap;

use serde_json::Map;

use super::moment::{Bound, Moment, TimeStyle};
use super::{Item, Sequence};
use crate::error::{Result, TrainError};

/// A rating: any number but those that cannot be compared or averaged.
pub fn parse_rating(text: &str) -> Result<f64, String> {
    let rating = text.trim().parse().ok().filter(|rating: &f64| rating.is_finite());
    rating.ok_or_else(|| format!("\"{text}\" is not a number"))
}

/// Which interactions count.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rules {
    /// Least rating; an interaction without one counts.
    pub min_rating: Option<f64>,
    /// Earliest time, itself included.
    pub from: Option<Bound>,
    /// Latest time, itself not included.
    pub until: Option<Bound>,
    /// Whether the same user, item and time count once.
    pub deduplicate: bool,
}

/// Interactions that do not count, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct LeftOut {
    /// Rated below the least rating.
    pub below_rating: usize,
    /// Outside the range of times.
    pub outside_time: usize,
    /// The same user, item and time again.
    pub duplicates: usize,
}

/// What was seen and left out on the way to the sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Interactions that do not count.
    pub left_out: LeftOut,
    /// The earliest and the latest time of all interactions before the rules left any out, as the
    /// source writes them; nothing where there are none.
    pub times: Option<[String; 2]>,
    /// Whether the times look like seconds and milliseconds in one file, or two other units, which puts
    /// what happened out of order.
    pub mixes_units: bool,
}

/// One interaction.
#[derive(Debug, Clone, Copy)]
struct Event {
    user: u32,
    item: u32,
    moment: Moment,
}

/// Ids as numbers, in the order of their first appearance.
#[derive(Debug, Default)]
pub(super) struct Ids {
    numbers: HashMap<Box<str>, u32>,
}

impl Ids {
    /// The number of an id; an error where 32 bits do not suffice.
    pub(super) fn number(&mut self, id: &str) -> Result<u32, String> {
        if let Some(&number) = self.numbers.get(id) {
            return Ok(number);
        }
        let number = u32::try_from(self.numbers.len())
            .map_err(|_| "more users or items than 32 bits can number")?;
        self.numbers.insert(id.into(), number);
        Ok(number)
    }

    /// Items of these ids by number, without texts and fields.
    pub(super) fn into_items(self) -> Vec<Item> {
        let ids = self.into_list().into_iter();
        ids.map(|id| Item { id, text: String::new(), fields: Map::new() }).collect()
    }

    /// All ids by number.
    fn into_list(self) -> Vec<String> {
        let mut list = vec![String::new(); self.numbers.len()];
        for (id, number) in self.numbers {
            list[number as usize] = id.into();
        }
        list
    }
}

/// Times that were seen, and the range of those that count.
#[derive(Debug, Clone, Copy)]
struct Times {
    style: TimeStyle,
    earliest: Moment,
    latest: Moment,
    from: Option<Moment>,
    until: Option<Moment>,
    /// Whether any was in the range.
    within: bool,
}

impl Times {
    /// Those of a source whose first interaction is known.
    fn new(rules: &Rules, style: TimeStyle, first: Moment) -> Result<Self, String> {
        let bound = |bound: Option<Bound>, option| {
            bound.map(|bound| bound.among(option, style, first)).transpose()
        };
        let (from, until) = (bound(rules.from, "--from")?, bound(rules.until, "--until")?);
        Ok(Self { style, earliest: first, latest: first, from, until, within: false })
    }

    /// Whether a time is in the range.
    fn see(&mut self, moment: Moment) -> bool {
        self.earliest = self.earliest.min(moment);
        self.latest = self.latest.max(moment);
        let within = self.from.is_none_or(|from| moment >= from)
            && self.until.is_none_or(|until| moment < until);
        self.within |= within;
        within
    }

    /// Whether numbers look like seconds here and milliseconds there, or like two other units.
    fn mix_units(&self) -> bool {
        let [one, other] = [self.earliest, self.latest].map(Moment::likely_unit);
        self.style == TimeStyle::Number && one.zip(other).is_some_and(|(one, other)| one != other)
    }

    /// The earliest and the latest that were seen.
    fn span(&self) -> [String; 2] {
        [self.earliest, self.latest].map(|moment| self.style.show(moment))
    }
}

/// Interactions of many users.
#[derive(Debug)]
pub(super) struct Events {
    rules: Rules,
    users: Ids,
    events: Vec<Event>,
    times: Option<Times>,
    left_out: LeftOut,
}

impl Events {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            users: Ids::default(),
            events: Vec::new(),
            times: None,
            left_out: LeftOut::default(),
        }
    }

    /// Whether an interaction of this rating and time counts; one that does not is counted. All
    /// times are of one style.
    ///
    /// # Errors
    /// [`TrainError::Usage`] where the range of the rules is of another style than the times.
    pub(super) fn counts(
        &mut self,
        rating: Option<f64>,
        moment: Moment,
        style: TimeStyle,
    ) -> Result<bool> {
        let times = match &mut self.times {
            Some(times) => times,
            none => none.insert(Times::new(&self.rules, style, moment).map_err(TrainError::usage)?),
        };
        let within = times.see(moment);
        if rating.zip(self.rules.min_rating).is_some_and(|(rating, least)| rating < least) {
            self.left_out.below_rating += 1;
            return Ok(false);
        }
        self.left_out.outside_time += usize::from(!within);
        Ok(within)
    }

    /// Takes an interaction that counts; an error where there are too many users to number.
    pub(super) fn push(&mut self, user: &str, item: u32, moment: Moment) -> Result<(), String> {
        let user = self.users.number(user)?;
        self.events.push(Event { user, item, moment });
        Ok(())
    }

    /// Users in the order of their first interaction, each with items in time order; equal times
    /// keep the order of the source.
    ///
    /// # Errors
    /// [`TrainError::Usage`] where the range of times leaves nothing.
    pub(super) fn into_sequences(self) -> Result<(Vec<Sequence>, Tally)> {
        let Self { rules, users, mut events, times, mut left_out } = self;
        let has_none = times.is_some_and(|times| !times.within);
        let mixes_units = times.is_some_and(|times| times.mix_units());
        let times = times.map(|times| times.span());
        if let (Some([earliest, latest]), true) = (&times, has_none) {
            return Err(TrainError::usage(format!(
                "no interaction is in the range of --from and --until: the times of the data go from \
                 {earliest} to {latest}"
            )));
        }
        // Stable, so that equal times keep the order of the source.
        events.sort_by_key(|event| (event.user, event.moment));
        let mut users = users.into_list();
        let sequences = events
            .chunk_by(|a, b| a.user == b.user)
            .map(|of_user| {
                let mut items = Vec::with_capacity(of_user.len());
                for same_time in of_user.chunk_by(|a, b| a.moment == b.moment) {
                    let start = items.len();
                    for event in same_time {
                        // Few interactions share a time, so looking through them is cheap.
                        if rules.deduplicate && items[start..].contains(&event.item) {
                            left_out.duplicates += 1;
                        } else {
                            items.push(event.item);
                        }
                    }
                }
                Sequence { user: std::mem::take(&mut users[of_user[0].user as usize]), items }
            })
            .collect();
        Ok((sequences, Tally { left_out, times, mixes_units }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Moment {
        Moment::parse(text).unwrap().0
    }

    fn bound(text: &str) -> Option<Bound> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn rules_leave_out_and_count() {
        let mut events = Events::new(Rules {
            min_rating: Some(3.0),
            from: bound("10"),
            until: bound("20"),
            deduplicate: true,
        });
        for (user, item, time, rating) in [
            ("b", 0, "12", Some(5.0)),
            ("a", 1, "19", None),
            ("b", 1, "11", Some(3.0)),
            ("b", 2, "12", Some(4.0)),
            ("b", 0, "12", Some(5.0)),
            ("b", 3, "20", Some(5.0)),
            ("a", 2, "9", Some(5.0)),
            ("a", 2, "15", Some(2.9)),
        ] {
            let moment = moment(time);
            if events.counts(rating, moment, TimeStyle::Number).unwrap() {
                events.push(user, item, moment).unwrap();
            }
        }
        let (sequences, tally) = events.into_sequences().unwrap();
        let found: Vec<_> = sequences.iter().map(|s| (s.user.as_str(), &s.items[..])).collect();
        assert_eq!(found, [("b", &[1, 0, 2][..]), ("a", &[1])]);
        let left_out = LeftOut { below_rating: 1, outside_time: 2, duplicates: 1 };
        let times = Some(["9".into(), "20".into()]);
        assert_eq!(tally, Tally { left_out, times, mixes_units: false });
    }

    #[test]
    fn seconds_beside_milliseconds_are_told() {
        for (times, mixed) in [
            (["1716270000", "1716270000123"], true),
            (["1716270000000", "1716270000"], true),
            (["1716270000", "1826270000"], false),
            (["1716270000000", "1826270000000"], false),
            (["1716270000000", "1716270000000000"], true),
            (["1716270000000000", "1716270000000000000"], true),
            (["1", "1716270000000"], false),
            (["2024-05-21", "2024-05-22"], false),
        ] {
            let mut events = Events::new(Rules::default());
            for time in times {
                let (moment, style) = Moment::parse(time).unwrap();
                assert!(events.counts(None, moment, style).unwrap());
            }
            assert_eq!(events.into_sequences().unwrap().1.mixes_units, mixed, "{times:?}");
        }
    }

    /// How many of 2020-01-01 and the moment a millisecond later are in a range, or the error.
    fn within(from: &str, style: TimeStyle, moments: [Moment; 2]) -> Result<usize, String> {
        let mut events = Events::new(Rules { from: bound(from), ..Rules::default() });
        let mut within = 0;
        for moment in moments {
            within += usize::from(events.counts(None, moment, style).map_err(|e| e.to_string())?);
        }
        Ok(within)
    }

    #[test]
    fn a_date_is_compared_in_the_unit_of_the_data() {
        let milliseconds = [1_577_836_800_000, 1_577_836_800_001].map(Moment::whole);
        let style = TimeStyle::Epoch { a_second: 1_000 };
        for (from, expected) in [
            ("2020-01-01T00:00:00Z", 2),
            ("2020-01-01T00:00:00.0005Z", 1),
            ("2020-01-01T00:00:00.001Z", 1),
            ("2020-01-01T00:00:00.0011Z", 0),
            ("9999-12-31T23:59:59Z", 0),
            ("0000-01-01T00:00:00Z", 2),
            ("1577836800001", 1),
        ] {
            assert_eq!(within(from, style, milliseconds), Ok(expected), "{from}");
        }
    }

    #[test]
    fn a_bound_of_another_style_is_refused() {
        let seconds = [1_577_836_800, 1_577_836_801].map(Moment::whole);
        let error = within("2020-01-01T00:00:00Z", TimeStyle::Number, seconds).unwrap_err();
        assert!(error.contains("--from is a date") && error.contains("1577836800"), "{error}");
        // A number of another unit would leave out all or nothing.
        let milliseconds = seconds.map(|_| Moment::whole(1_577_836_800_000));
        let style = TimeStyle::Epoch { a_second: 1_000 };
        for (from, style, moments, units) in [
            ("1577836800", style, milliseconds, ["seconds", "milliseconds"]),
            ("1577836800.5", TimeStyle::Number, milliseconds, ["seconds", "milliseconds"]),
            ("1577836800000", TimeStyle::Number, seconds, ["milliseconds", "seconds"]),
        ] {
            let error = within(from, style, moments).unwrap_err();
            let said = units.map(|unit| format!("like {unit}"));
            assert!(said.iter().all(|said| error.contains(said)), "{error}");
        }
        assert_eq!(within("0", style, milliseconds), Ok(2));
        let error = within("1577836800", TimeStyle::Date, seconds).unwrap_err();
        assert!(error.contains("--from is a number") && error.contains("2020-01-01T"), "{error}");
    }
}
