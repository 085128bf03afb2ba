/* SPDX-License-Identifier: MIT */
/* The walk over a sysfs made of plain files in a temporary folder. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/blkdev_internal.h"
#include "tests/unit/cmocka_all.h"

static char root_path[] = "/tmp/test-blkdev-XXXXXX";
static int root;

static void run(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	assert_int_equal(system(command), 0);
}

/* A disk @name with number @dev ("8:0"). */
static void disk(const char *name, const char *dev)
{
	run("cd %s && mkdir -p sys/devices/%s sys/dev/block && echo %s > sys/devices/%s/dev && "
	    "ln -sfn ../../devices/%s sys/dev/block/%s",
	    root_path, name, dev, name, name, dev);
}

static void partition(const char *of, const char *name, const char *dev)
{
	run("cd %s && mkdir -p sys/devices/%s/%s && echo %s > sys/devices/%s/%s/dev && "
	    "echo 1 > sys/devices/%s/%s/partition && ln -sfn ../../devices/%s/%s sys/dev/block/%s",
	    root_path, of, name, dev, of, name, of, name, of, name, dev);
}

/* @upper stands on @lower (both below sys/devices). */
static void stacked(const char *upper, const char *lower, const char *as)
{
	run("cd %s && mkdir -p sys/devices/%s/slaves && ln -sfn ../../%s sys/devices/%s/slaves/%s",
	    root_path, upper, lower, upper, as);
}

static int setup(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(root_path));
	root = open(root_path, O_PATH | O_DIRECTORY);
	disk("ublkb3", "259:0");
	partition("ublkb3", "ublkb3p1", "259:1");
	disk("ublkb12", "259:5");
	disk("sda", "8:0");
	partition("sda", "sda1", "8:1");
	disk("dm-0", "253:0");
	stacked("dm-0", "ublkb3/ublkb3p1", "ublkb3p1");
	disk("md0", "9:0");
	stacked("md0", "ublkb12", "ublkb12");
	stacked("md0", "dm-0", "dm-0");
	stacked("md0", "sda", "sda");
	disk("loop-a", "250:0");
	disk("loop-b", "250:1");
	stacked("loop-a", "loop-b", "loop-b");
	stacked("loop-b", "loop-a", "loop-a");
	disk("ublkbx", "250:9");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	run("rm -rf %s", root_path);
	close(root);
	return 0;
}

static struct blkdev_ublk find(unsigned int maj, unsigned int min)
{
	struct blkdev_ublk found;

	assert_int_equal(blkdev_find_ublk_at(root, makedev(maj, min), &found), 0);
	return found;
}

static void finds_the_disk_itself_and_its_partition(void **state)
{
	(void)state;
	assert_int_equal(find(259, 0).nr, 1);
	assert_int_equal(find(259, 0).ids[0], 3);
	assert_int_equal(find(259, 5).ids[0], 12);
	assert_int_equal(find(259, 1).nr, 1);
	assert_int_equal(find(259, 1).ids[0], 3);
}

static void other_disks_have_none(void **state)
{
	(void)state;
	assert_int_equal(find(8, 0).nr, 0);
	assert_int_equal(find(8, 1).nr, 0);
	assert_int_equal(find(250, 9).nr, 0); /* only looks like one */
}

static void finds_all_below_a_stack_once(void **state)
{
	struct blkdev_ublk found = find(9, 0);

	(void)state;
	assert_int_equal(find(253, 0).ids[0], 3);
	assert_int_equal(found.nr, 2);
	assert_int_equal(found.ids[0] + found.ids[1], 15);
}

static void a_cycle_ends(void **state)
{
	(void)state;
	assert_int_equal(find(250, 0).nr, 0);
}

static void a_stack_too_deep_is_an_error(void **state)
{
	struct blkdev_ublk found;
	char name[16], below[16], dev[16];

	(void)state;
	disk("deep-0", "251:0");
	for (int i = 1; i <= BLKDEV_DEPTH_MAX + 1; i++) {
		snprintf(name, sizeof(name), "deep-%d", i);
		snprintf(below, sizeof(below), "deep-%d", i - 1);
		snprintf(dev, sizeof(dev), "251:%d", i);
		disk(name, dev);
		stacked(name, below, below);
	}
	assert_int_equal(find(251, BLKDEV_DEPTH_MAX).nr, 0);
	assert_int_equal(blkdev_find_ublk_at(root, makedev(251, BLKDEV_DEPTH_MAX + 1), &found),
			 -ELOOP);
}

static void an_unknown_device_is_an_error(void **state)
{
	struct blkdev_ublk found;

	(void)state;
	assert_int_equal(blkdev_find_ublk_at(root, makedev(1, 77), &found), -ENOENT);
}

static void mountinfo_is_searched_by_mount_id(void **state)
{
	struct blkdev_ublk found;

	(void)state;
	run("mkdir -p %s/proc/self && (i=100; while [ $i -lt 300 ]; do echo \"$i 1 0:$i / /mnt/$i "
	    "rw "
	    "shared:1 - tmpfs tmpfs rw,a-rather-long-option-so-that-reads-are-cut-anywhere\"; "
	    "i=$((i+1)); done; echo '300 1 0:44 /sub /mnt/b rw - btrfs overlay rw') > "
	    "%s/proc/self/mountinfo",
	    root_path, root_path);
	assert_int_equal(blkdev_find_mount_at(root, 299, &found), 0);
	assert_int_equal(found.nr, 0);
	assert_int_equal(blkdev_find_mount_at(root, 300, &found), 0);
	assert_int_equal(found.nr, 0);
	assert_int_equal(blkdev_find_mount_at(root, 12345, &found), 0);
	assert_int_equal(found.nr, 0);
}

/* Anyone may mount a FUSE file system and call it what he likes. */
static void only_btrfs_is_believed_its_source(void **state)
{
	struct blkdev_ublk found;

	(void)state;
	run("mkdir -p %s/proc/self && printf '%%s\\n' "
	    "'7 1 0:50 / /mnt/f rw - fuse /dev/none rw' '8 1 0:51 / /mnt/s rw - fuse.btrfs "
	    "/dev/none rw' "
	    "'9 1 0:52 / /mnt/b rw - btrfs /dev/none rw' > %s/proc/self/mountinfo",
	    root_path, root_path);
	assert_int_equal(blkdev_find_mount_at(root, 7, &found), 0);
	assert_int_equal(found.nr, 0);
	assert_int_equal(blkdev_find_mount_at(root, 8, &found), 0);
	assert_int_equal(found.nr, 0);
	/* that it was looked at shows in its not being there */
	assert_int_equal(blkdev_find_mount_at(root, 9, &found), -ENOENT);
}

static void a_btrfs_mount_leads_to_its_disk(void **state)
{
	struct blkdev_ublk found;

	(void)state;
	run("mkdir -p %s/proc/self %s/dev && echo '7 1 0:50 /sub /mnt/f rw - btrfs /dev/fs "
	    "rw,subvol=/sub' "
	    "> %s/proc/self/mountinfo",
	    root_path, root_path, root_path);
	if (mknodat(root, "dev/fs", S_IFBLK | 0600, makedev(259, 1)) < 0)
		skip(); /* not root */
	assert_int_equal(blkdev_find_mount_at(root, 7, &found), 0);
	assert_int_equal(found.nr, 1);
	assert_int_equal(found.ids[0], 3);
}

static void other_kinds_of_files_are_refused(void **state)
{
	struct blkdev_ublk found;
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(blkdev_find_ublk_fd(fds[0], &found), -ENOTBLK);
	assert_int_equal(blkdev_find_ublk_fd(-1, &found), -EBADF);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_the_disk_itself_and_its_partition),
		cmocka_unit_test(other_disks_have_none),
		cmocka_unit_test(finds_all_below_a_stack_once),
		cmocka_unit_test(a_cycle_ends),
		cmocka_unit_test(a_stack_too_deep_is_an_error),
		cmocka_unit_test(an_unknown_device_is_an_error),
		cmocka_unit_test(mountinfo_is_searched_by_mount_id),
		cmocka_unit_test(only_btrfs_is_believed_its_source),
		cmocka_unit_test(a_btrfs_mount_leads_to_its_disk),
		cmocka_unit_test(other_kinds_of_files_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
