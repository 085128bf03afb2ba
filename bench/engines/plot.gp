# bench/engines/plot.gp - throughput relative to the kernel client, with the shim and without.
set terminal svg size 720,360 font "sans,12" background "white"
set title heading
set ylabel "throughput / kernel client"
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.6
set boxwidth 0.9
set yrange [0:*]
set grid ytics
set key top left
set arrow from graph 0, first 1 to graph 1, first 1 nohead dt 2
plot data using 2:xtic(1) title "ublkzc with the shim", data using 3 title "ublkzc without it"
