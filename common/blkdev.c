/* SPDX-License-Identifier: MIT */
#include "blkdev.h"
