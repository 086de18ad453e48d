//! A histogram as a record keeps it: HdrHistogram's own compressed form (V2, deflated) in base64,
//! which the tools of HdrHistogram in other languages read too. Records from before November 2026
//! have lists of values with their counts instead, ten times as long; they are read as well.

use anyhow::{Result, anyhow, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::drive::histogram;

/// The values of a histogram (ns, the upper end of their class) with their counts.
type Counts = Vec<(u64, u64)>;

/// A histogram in a record.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Packed {
    /// In HdrHistogram's compressed form.
    Compressed(String),
    /// As older records have it.
    Counts(Counts),
}

impl Packed {
    /// A histogram as it is written today.
    pub(super) fn of(histogram: &Histogram<u64>) -> Result<Self> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(histogram, &mut bytes)
            .map_err(|e| anyhow!("a histogram cannot be written: {e:?}"))?;
        Ok(Self::Compressed(BASE64_STANDARD.encode(bytes)))
    }

    /// The same of values with their counts.
    pub(super) fn of_counts(counts: &Counts) -> Result<Self> {
        Self::of(&from_counts(counts)?)
    }

    /// The histogram, with the bounds of this program: so those of all records add up.
    pub(super) fn histogram(&self) -> Result<Histogram<u64>> {
        let histogram = self.read()?;
        // The form cannot hold every count that a damaged one may claim to have.
        let again = Self::of(&histogram)?.read()?;
        ensure!(again == histogram, "a histogram is damaged");
        Ok(histogram)
    }

    fn read(&self) -> Result<Histogram<u64>> {
        match self {
            Self::Counts(counts) => from_counts(counts),
            Self::Compressed(text) => {
                let bytes = BASE64_STANDARD.decode(text)?;
                let kept: Histogram<u64> = Deserializer::new()
                    .deserialize(&mut &bytes[..])
                    .map_err(|e| anyhow!("a histogram cannot be read: {e:?}"))?;
                let mut own = histogram();
                own.add(kept).map_err(|e| anyhow!("a histogram does not fit: {e:?}"))?;
                Ok(own)
            }
        }
    }

    /// Its values with their counts.
    pub(super) fn counts(&self) -> Result<Counts> {
        Ok(counts(&self.histogram()?))
    }
}

/// The values that were recorded, with their counts, ascending.
pub(super) fn counts(histogram: &Histogram<u64>) -> Counts {
    histogram.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
}

fn from_counts(counts: &Counts) -> Result<Histogram<u64>> {
    let mut histogram = histogram();
    for &(value, count) in counts {
        histogram.record_n(value, count).map_err(|e| anyhow!("{value} ns: {e}"))?;
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn of_all_sizes() -> Histogram<u64> {
        let mut histogram = histogram();
        for value in [1, 999, 1_000, 123_456_789, 99_999_999_999, u64::MAX] {
            histogram.saturating_record_n(value, value % 7 + 1);
        }
        histogram
    }

    #[test]
    fn a_histogram_comes_back_from_a_record_as_it_was() {
        let histogram = of_all_sizes();
        let packed = Packed::of(&histogram).unwrap();
        let text = serde_json::to_string(&packed).unwrap();
        assert!(text.starts_with("\"HISTF"), "the form that other tools know: {text}");
        let read: Packed = serde_json::from_str(&text).unwrap();
        assert_eq!(read.histogram().unwrap(), histogram);
        let again = Packed::of_counts(&read.counts().unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }

    #[test]
    fn older_records_have_lists_of_values() {
        let histogram = of_all_sizes();
        let text = serde_json::to_string(&counts(&histogram)).unwrap();
        assert!(text.starts_with("[[1,2],[999,6],"), "{text}");
        let read: Packed = serde_json::from_str(&text).unwrap();
        assert_eq!(read.histogram().unwrap(), histogram);
        let beyond = Packed::Counts(vec![(u64::MAX, 1)]);
        assert!(beyond.histogram().is_err(), "no generator writes such a value");
    }

    /// The histograms of a record that was published in the older form.
    #[test]
    fn a_histogram_takes_a_fraction_of_the_older_form() {
        let path = "../docs/record/2026-11-22-quick/runs.jsonl.gz";
        let file = std::fs::File::open(path).unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        let (mut older, mut today, mut all) = (0, 0, 0);
        for line in text.lines() {
            let run: serde_json::Value = serde_json::from_str(line).unwrap();
            for (_, value) in run["histograms"].as_object().unwrap() {
                let packed: Packed = serde_json::from_value(value.clone()).unwrap();
                let again = Packed::of(&packed.histogram().unwrap()).unwrap();
                assert_eq!(again.counts().unwrap(), packed.counts().unwrap());
                older += value.to_string().len();
                today += serde_json::to_string(&again).unwrap().len();
                all += 1;
            }
        }
        println!("{all} histograms: {older} bytes before, {today} today");
        assert!(all > 100 && today * 8 < older, "{all}: {older} bytes before, {today} today");
    }

    /// Those of another version may have other bounds.
    #[test]
    fn histograms_of_other_bounds_are_read_with_ours() {
        let mut other = Histogram::<u64>::new_with_bounds(1, 5_000_000_000, 3).unwrap();
        other.record_n(1_000_000, 3).unwrap();
        let mut own = histogram();
        own.record_n(1_000_000, 3).unwrap();
        assert_eq!(Packed::of(&other).unwrap().histogram().unwrap(), own);
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        for text in ["", "HISTF", "%%%%", "SElTVEZBQUFB"] {
            assert!(Packed::Compressed(text.into()).histogram().is_err(), "{text}");
        }
        let beyond = Packed::Counts(vec![(5, u64::MAX - 264)]);
        assert!(beyond.histogram().is_err(), "more than the form can hold");
    }
}
