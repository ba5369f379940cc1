// SPDX-License-Identifier: MIT
//
// The first translation unit: that it links is the test; then that both see one object.

#include "both.hpp"

#include <cstdio>

int main() {
    namespace cc = codomyrmex::concurrency;
    if (&cc::lock_category() != &category_seen_by_the_other()) {
        std::puts("each translation unit has an error category of its own");
        return 1;
    }
    if (&cc::version != &version_seen_by_the_other()) {
        std::puts("each translation unit has a version of its own");
        return 1;
    }
    std::puts("two translation units, one program");
}
