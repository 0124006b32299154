//! Points in time, however a source writes them.

use std::borrow::Cow;
use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time that compares numbers exactly, whatever their unit: the whole part and
/// billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    whole: i64,
    billionths: u32,
}

/// How times are written; one way a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeStyle {
    /// A number of a unit that only the user knows.
    Number,
    /// A number of so many parts of a second since 1970.
    Epoch {
        /// 1 for seconds, 1,000 for milliseconds.
        a_second: u32,
    },
    /// A date, or a date and time.
    Date,
}

impl TimeStyle {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Number | Self::Epoch { .. } => "a number",
            Self::Date => "a date",
        }
    }

    /// A moment as the source would write it.
    pub(super) fn show(self, moment: Moment) -> String {
        let date = match self {
            Self::Date => moment.to_rfc3339(),
            Self::Number | Self::Epoch { .. } => None,
        };
        date.unwrap_or_else(|| moment.to_number())
    }
}

impl Moment {
    /// A whole number of the source's unit.
    pub(super) const fn whole(whole: i64) -> Self {
        Self { whole, billionths: 0 }
    }

    /// A count of parts of a second since 1970.
    pub(super) fn since_epoch(count: i64, a_second: u32) -> Self {
        let parts = i64::from(a_second);
        // Less than a second, so it fits.
        let rest = count.rem_euclid(parts) as u32;
        Self { whole: count.div_euclid(parts), billionths: rest * (1_000_000_000 / a_second) }
    }

    /// Seconds since 1970 as a date and time; nothing beyond the years that RFC 3339 has.
    pub(super) fn to_rfc3339(self) -> Option<String> {
        let date = OffsetDateTime::from_unix_timestamp(self.whole).ok()?;
        date.replace_nanosecond(self.billionths).ok()?.format(&Rfc3339).ok()
    }

    /// The number that it is, in whatever unit it has.
    fn to_number(self) -> String {
        let all = i128::from(self.whole) * 1_000_000_000 + i128::from(self.billionths);
        let (size, sign) = (all.unsigned_abs(), if all < 0 { "-" } else { "" });
        let (whole, billionths) = (size / 1_000_000_000, size % 1_000_000_000);
        let number = format!("{sign}{whole}.{billionths:09}");
        number.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    /// The unit that a number since 1970 seems to have: of the years from 1973 to 2286 all have nine or
    /// ten digits in seconds, and three more in each smaller unit.
    pub(super) fn likely_unit(self) -> Option<LikelyUnit> {
        match self.whole {
            100_000_000..10_000_000_000 => Some(LikelyUnit::Seconds),
            100_000_000_000..10_000_000_000_000 => Some(LikelyUnit::Milliseconds),
            100_000_000_000_000..10_000_000_000_000_000 => Some(LikelyUnit::Microseconds),
            100_000_000_000_000_000.. => Some(LikelyUnit::Nanoseconds),
            _ => None,
        }
    }

    /// A number; or a date as RFC 3339 has it, with a blank or `T` in front of the time of day. A
    /// missing time of day is the day's beginning, missing seconds are none, and a missing zone is
    /// UTC, as ` UTC` is; an offset may lack its colon or its minutes.
    pub(super) fn parse(text: &str) -> Option<(Self, TimeStyle)> {
        let text = text.trim();
        if let Ok(whole) = text.parse() {
            return Some((Self::whole(whole), TimeStyle::Number));
        }
        if let Ok(number) = text.parse::<f64>() {
            // Beyond 2^63 the whole part does not fit; NaN fails the comparison, too.
            let fits = number.abs() < 9.2e18;
            let billionths = ((number - number.floor()) * 1e9) as u32;
            let moment = Self { whole: number.floor() as i64, billionths };
            return fits.then_some((moment, TimeStyle::Number));
        }
        let date = OffsetDateTime::parse(&in_full(text), &Rfc3339).ok()?;
        let moment = Self { whole: date.unix_timestamp(), billionths: date.nanosecond() };
        Some((moment, TimeStyle::Date))
    }
}

/// A unit that a number without one seems to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LikelyUnit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl LikelyUnit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }
}

/// What is said of a text that [`Moment::parse`] refuses.
pub(super) const NO_TIME: &str = "is neither a number nor a date such as 2024-05-21, \
                                  2024-05-21 05:39:06 or 2024-05-21T05:39:06+02:00";

/// A date with what it lacks of RFC 3339.
fn in_full(text: &str) -> Cow<'_, str> {
    const DAY: usize = "2024-05-21".len();
    let Some((day, rest)) = text.split_at_checked(DAY) else { return text.into() };
    if rest.is_empty() {
        return format!("{day}T00:00:00Z").into();
    }
    let rest = rest.strip_suffix("UTC").map_or(rest, str::trim_end);
    let (time, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len()));
    let time = time.trim_end();
    // A blank or `T` is a byte of this too.
    let seconds = if time.len() == "T05:39".len() { ":00" } else { "" };
    let zone = match (zone.len(), zone.split_at_checked("+02".len())) {
        (0, _) => "Z".into(),
        (3, _) => format!("{zone}:00").into(),
        (5, Some((hours, minutes))) => format!("{hours}:{minutes}").into(),
        _ => Cow::Borrowed(zone),
    };
    format!("{day}{time}{seconds}{zone}").into()
}

/// An end of a range of times, as the user wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    moment: Moment,
    style: TimeStyle,
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = Moment::parse(text).map(|(moment, style)| Self { moment, style });
        parsed.ok_or_else(|| NO_TIME.to_owned())
    }
}

impl Bound {
    /// The moment that it is among times of this style, of which `first` is one; an error where
    /// the two cannot be compared.
    pub(super) fn among(
        self,
        option: &str,
        style: TimeStyle,
        first: Moment,
    ) -> Result<Moment, String> {
        match (self.style, style) {
            (TimeStyle::Date, TimeStyle::Epoch { a_second }) => {
                // Years of four digits and thousandths at most, so it fits.
                let parts = self.moment.whole * i64::from(a_second);
                let rest = i64::from(self.moment.billionths) * i64::from(a_second);
                let whole = parts + rest / 1_000_000_000;
                Ok(Moment { whole, billionths: (rest % 1_000_000_000) as u32 })
            }
            (TimeStyle::Date, TimeStyle::Number) | (TimeStyle::Number, TimeStyle::Date) => {
                Err(format!(
                    "{option} is {}, but a time of the data is {} (their first is {}); give it as \
                     they are",
                    self.style.name(),
                    style.name(),
                    style.show(first)
                ))
            }
            (TimeStyle::Date, TimeStyle::Date) => Ok(self.moment),
            _ => match (self.moment.likely_unit(), first.likely_unit()) {
                (Some(unit), Some(other)) if unit != other => Err(format!(
                    "{option} looks like {}, but a time of the data like {} (their first is {}); give \
                     it as they are",
                    unit.name(),
                    other.name(),
                    style.show(first)
                )),
                _ => Ok(self.moment),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Moment {
        Moment::parse(text).unwrap().0
    }

    #[test]
    fn numbers_compare_exactly() {
        assert!(moment("9007199254740993") > moment("9007199254740992"), "beyond f64's integers");
        assert!(moment("-1.5") < moment("-1.25"));
        assert!(moment("1.5") > moment("1"));
        assert!(moment("2e9") > moment("1999999999"));
    }

    #[test]
    fn dates_compare_across_offsets() {
        assert_eq!(moment("2020-01-01T01:00:00+01:00"), moment("2020-01-01T00:00:00Z"));
        assert!(moment("2020-01-01T00:00:00.5Z") > moment("2020-01-01T00:00:00Z"));
    }

    #[test]
    fn a_date_without_a_time_or_a_zone_is_of_utc() {
        for (short, full) in [
            ("2024-05-21", "2024-05-21T00:00:00Z"),
            ("2024-05-21 05:39:06", "2024-05-21T05:39:06Z"),
            ("2024-05-21T05:39:06", "2024-05-21T05:39:06Z"),
            ("2024-05-21 05:39:06.25", "2024-05-21T05:39:06.25Z"),
            ("2024-05-21 05:39:06-02:00", "2024-05-21T07:39:06Z"),
            (" 2024-05-21 05:39:06z ", "2024-05-21T05:39:06Z"),
            ("2024-05-21 05:39:06 UTC", "2024-05-21T05:39:06Z"),
            ("2024-05-21 05:39:06.123 UTC", "2024-05-21T05:39:06.123Z"),
            ("2024-05-21T05:39:06+0200", "2024-05-21T03:39:06Z"),
            ("2024-05-21 05:39:06 -02", "2024-05-21T07:39:06Z"),
            ("2024-05-21T05:39", "2024-05-21T05:39:00Z"),
            ("2024-05-21 05:39Z", "2024-05-21T05:39:00Z"),
        ] {
            assert_eq!(Moment::parse(short), Moment::parse(full), "{short}");
            assert_eq!(Moment::parse(short).unwrap().1, TimeStyle::Date, "{short}");
        }
    }

    #[test]
    fn counts_since_1970_are_dates() {
        for (count, a_second, date) in [
            (-1, 1_000, "1969-12-31T23:59:59.999Z"),
            (1_577_836_800_000_001, 1_000_000, "2020-01-01T00:00:00.000001Z"),
            (1_577_836_800_000_000_007, 1_000_000_000, "2020-01-01T00:00:00.000000007Z"),
        ] {
            assert_eq!(Moment::since_epoch(count, a_second), moment(date));
            assert_eq!(moment(date).to_rfc3339().unwrap(), date);
        }
        assert_eq!(Moment::since_epoch(i64::MIN, 1_000).to_rfc3339(), None);
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "NaN",
            "inf",
            "1e300",
            "yesterday",
            "0x10",
            "2020-01",
            "2020-02-30",
            "2020-1-1 00:00:00",
            "01/02/2020",
            "2020-01-01T",
            "2020-01-01 24:00:00",
            "2020-01-01 00:0",
            "2020-01-01 00",
            "2020-01-01 00:00:00 +2",
            "2020-01-01 00:00:00 CET",
            "2020-01-01 UTC",
            "2020-01-0é",
            "2020-01-01é00:00:00é",
        ] {
            assert!(Moment::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn numbers_are_shown_as_they_are_written() {
        for text in ["0", "-1", "-1.25", "1.5", "-0.000000001", "9223372036854775807"] {
            assert_eq!(moment(text).to_number(), text);
        }
    }
}
