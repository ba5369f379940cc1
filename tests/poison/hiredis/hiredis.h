// SPDX-License-Identifier: MIT
//
// Stands in front of hiredis in the poison test.

#error "the local half must not include hiredis"
