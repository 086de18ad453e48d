//! Numbers and durations of the command line, each with its bounds, which are named where a value
//! is refused: `from LEAST to MOST`.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// The longest that anything may be asked to take.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest that can be waited for.
pub const MILLISECOND: Duration = Duration::from_millis(1);

/// Reads a number from `least` to `most`.
pub fn number<T>(least: T, most: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Copy,
{
    move |text| {
        let number = text.parse::<T>().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("write a number from {least} to {most}"))
    }
}

/// Reads a duration from `least` to `most`, such as `5s` or `500ms`.
pub fn duration(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let duration = humantime::parse_duration(text).ok();
        duration.filter(|duration| (least..=most).contains(duration)).ok_or_else(|| {
            let [least, most] = [least, most].map(humantime::format_duration);
            format!("write a duration from {least} to {most}, such as 500ms")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_are_in_and_what_is_beyond_is_told_them() {
        let size = number(1_u32, 65_536);
        assert_eq!([size("1"), size("65536")], [Ok(1), Ok(65_536)]);
        let rate = number(0.5, 1e8);
        assert_eq!([rate("0.5"), rate("1e8")], [Ok(0.5), Ok(1e8)]);
        let wait = duration(MILLISECOND, DAY);
        assert_eq!([wait("1ms"), wait("24h")], [Ok(MILLISECOND), Ok(DAY)]);
        for wrong in ["0", "65537", "4294967296", "18446744073709551616", "-1", "1.5", "x", ""] {
            assert_eq!(size(wrong), Err("write a number from 1 to 65536".into()), "{wrong:?}");
        }
        for wrong in ["0.4", "1e9", "inf", "NaN", "x", ""] {
            let told = rate(wrong).unwrap_err();
            assert!(told.ends_with("from 0.5 to 100000000"), "{wrong:?}: {told}");
        }
        for wrong in ["0s", "25h", "18446744073709551616s", "-1s", "5", "x", ""] {
            let told = wait(wrong).unwrap_err();
            assert!(told.contains("from 1ms to 1day"), "{wrong:?}: {told}");
        }
    }
}
