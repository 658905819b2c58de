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
