//! Loops compiled for the widest vectors that the processor has.

/// Defines a function over slices several times, for processors with wider and wider vectors, and chooses among
/// them when it is called. A program is built for the oldest processor that it runs on; without this its
/// loops would use a quarter of a newer one.
///
/// The versions give the same bits: the compiler neither reorders sums nor fuses products with them, and how
/// a sum is spread over lanes is spelled out by whoever writes it.
macro_rules! vectorised {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$attribute])*
        #[allow(unsafe_code)]
        $visibility fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
                fn by_sixteen($($argument: $kind),*) $(-> $result)? {
                    plain($($argument),*)
                }

                #[target_feature(enable = "avx2")]
                fn by_eight($($argument: $kind),*) $(-> $result)? {
                    plain($($argument),*)
                }

                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor was asked for what the function needs; it has avx2 where it has these.
                    return unsafe { by_sixteen($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor was asked for what the function needs.
                    return unsafe { by_eight($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    )*};
}

pub(crate) use vectorised;

vectorised! {
    /// Adds each of `terms` to its own of `values`.
    pub(crate) fn add_in_place(values: &mut [f32], terms: &[f32]) {
        for (value, term) in values.iter_mut().zip(terms) {
            *value += term;
        }
    }
}

/// Values that a sum or a maximum is spread over.
pub(crate) const LANES: usize = 16;

/// The sum of `of` every value, in an order that depends on their number alone.
#[inline(always)]
pub(crate) fn sum_of(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += of(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += of(value);
    }
    total(lanes)
}

/// The sum of the lanes, by halves.
#[inline(always)]
pub(crate) fn total(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for index in 0..width {
            lanes[index] += lanes[index + width];
        }
        width /= 2;
    }
    lanes[0]
}
