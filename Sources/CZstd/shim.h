// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#include <zstd.h>
#include <zstd_errors.h>
