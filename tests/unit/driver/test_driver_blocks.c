/* SPDX-License-Identifier: MIT */
/*
 * test_driver_blocks.c - do the kernel driver's tables and blocks find what is registered?
 *
 * The functions are taken from the driver's source.  Buffers of random runs come and go, and what
 * is found for each page is compared with a table of pages.
 */
#include "tests/unit/cmocka_all.h"
#include "tests/unit/driver/kernel.h"

#include "driver_blocks.inc"

#define NR_PAGES 2000U
#define NR_BUFFERS 40U
#define NR_ROUNDS 4000U

static struct ublk_shmem device;
static const struct ublk_shmem_run *owner[NR_PAGES];
static unsigned int seed;

static unsigned int any(unsigned int most)
{
	return (unsigned int)rand_r(&seed) % most;
}

/* A few long runs, many short ones, or every other page from the last to the first. */
static struct ublk_shmem_buf *make_buffer(void)
{
	unsigned int nr = 1 + any(12), longest = any(2) ? 40 : 3, base = any(NR_PAGES - 50);
	struct ublk_shmem_buf *buf = calloc(1, struct_size(buf, runs, nr));
	bool comb = any(3) == 0;

	assert_non_null(buf);
	buf->nr_runs = nr;
	for (unsigned int i = 0; i < nr; i++) {
		buf->runs[i] = (struct ublk_shmem_run){
			.pfn = comb ? base + 2 * (nr - i) : any(NR_PAGES - 50),
			.first_page = (unsigned int)buf->nr_pages,
			.nr_pages = comb ? 1 : 1 + any(longest),
		};
		buf->nr_pages += buf->runs[i].nr_pages;
	}
	return buf;
}

/* Is a page registered already, or in the buffer twice? */
static bool clashes(const struct ublk_shmem_buf *buf)
{
	bool seen[NR_PAGES] = { false };

	for (unsigned int i = 0; i < buf->nr_runs; i++) {
		for (unsigned int j = 0; j < buf->runs[i].nr_pages; j++) {
			unsigned long pfn = buf->runs[i].pfn + j;

			if (seen[pfn] || owner[pfn])
				return true;
			seen[pfn] = true;
		}
	}
	return false;
}

static void set_owner(struct ublk_shmem_buf *buf, bool is)
{
	for (unsigned int i = 0; i < buf->nr_runs; i++)
		for (unsigned int j = 0; j < buf->runs[i].nr_pages; j++)
			owner[buf->runs[i].pfn + j] = is ? &buf->runs[i] : NULL;
}

/* As registering does it: nothing stays of one that fails. */
static int insert(struct ublk_shmem_buf *buf)
{
	u32 *order = ublk_shmem_sort(buf);
	int ret;

	if (!order)
		return -ENOMEM;
	ret = ublk_shmem_insert(&device, buf, order);
	kvfree(order);
	return ret;
}

static struct ublk_shmem_buf *try_to_insert(bool may_fail)
{
	struct ublk_shmem_buf *buf = make_buffer();
	int ret;

	fail_after = may_fail ? (int)any(8) : -1;
	ret = insert(buf);
	fail_after = -1;
	if (!ret) {
		assert_false(clashes(buf));
		assert_ptr_equal(ublk_shmem_get_buf(&device, buf->index), buf);
		set_owner(buf, true);
		return buf;
	}
	if (ret == -EEXIST)
		assert_true(clashes(buf));
	else
		assert_true(may_fail && ret == -ENOMEM);
	free(buf);
	return NULL;
}

static void take_out(struct ublk_shmem_buf *buf)
{
	ublk_shmem_erase(&device, buf);
	ublk_shmem_set_buf(&device, buf->index, NULL);
	ida_free(&device.indexes, buf->index);
	set_owner(buf, false);
	free(buf);
}

/* Of all that are found, the same ones in the same order as by their index. */
static void check_next(void)
{
	unsigned int next = 0;

	for (unsigned int i = 0; i < NR_INDEXES; i++) {
		struct ublk_shmem_buf *buf = ublk_shmem_get_buf(&device, i);

		if (!buf)
			continue;
		assert_ptr_equal(ublk_shmem_next_buf(&device, &next), buf);
		assert_int_equal(next++, i);
	}
	assert_null(ublk_shmem_next_buf(&device, &next));
}

/* Every page is found, or not; no block or leaf is left over or empty. */
static void check_all(void)
{
	const struct ublk_shmem_dir *dir = device.blocks;
	long nr = (device.bufs != NULL) + (dir != NULL);

	for (unsigned long pfn = 0; pfn < NR_PAGES; pfn++) {
		const struct ublk_shmem_run *run = NULL;
		struct ublk_shmem_buf *buf = ublk_shmem_find(&device, pfn, &run);

		assert_ptr_equal(run, owner[pfn]);
		assert_true(!run || (run >= buf->runs && run < buf->runs + buf->nr_runs));
	}
	for (unsigned long i = 0; dir && i < dir->nr; i++) {
		const struct ublk_shmem_leaf *leaf = dir->leaves[i];
		long nr_blocks = 0;

		for (unsigned int j = 0; leaf && j < UBLK_SHMEM_LEAF_BLOCKS; j++)
			nr_blocks += leaf->blocks[j] != NULL;
		assert_true(!leaf || nr_blocks);
		nr += nr_blocks + (leaf != NULL);
	}
	assert_int_equal(nr_allocated, nr);
	check_next();
}

static void come_and_go(bool allocations_fail)
{
	struct ublk_shmem_buf *buffers[NR_BUFFERS] = { NULL };
	unsigned int nr_inserted = 0;

	seed = 1;
	for (unsigned int i = 0; i < NR_ROUNDS; i++) {
		struct ublk_shmem_buf **one = &buffers[any(NR_BUFFERS)];

		if (*one) {
			take_out(*one);
			*one = NULL;
		} else {
			*one = try_to_insert(allocations_fail && any(3) == 0);
			nr_inserted += *one != NULL;
		}
		check_all();
	}
	assert_true(nr_inserted > NR_ROUNDS / 10);
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		if (buffers[i])
			take_out(buffers[i]);
	check_all();
	ublk_shmem_free_tables(&device);
	device.bufs = NULL;
	device.blocks = NULL;
	assert_int_equal(nr_allocated, 0);
}

static void every_page_is_found_while_buffers_come_and_go(void **state)
{
	(void)state;
	come_and_go(false);
}

static void a_failed_registration_leaves_nothing(void **state)
{
	(void)state;
	come_and_go(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_page_is_found_while_buffers_come_and_go),
		cmocka_unit_test(a_failed_registration_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
