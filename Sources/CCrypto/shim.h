// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#include <openssl/evp.h>
