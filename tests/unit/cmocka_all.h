/* SPDX-License-Identifier: MIT */
/* cmocka_all.h - cmocka.h wants these in front of it. */
#ifndef UBLKZC_TESTS_CMOCKA_ALL_H
#define UBLKZC_TESTS_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
