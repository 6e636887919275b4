. /work/h2.sh
cd /tmp/h2exp; rm -rf t s
nice -n 15 python -m rheos train images --net mlp --steps 2500 --batch 128 --width 192 --sample-every 0 --out t > log1 2>&1
nice -n 15 python -m rheos distill t --to lagrangian --guidance 1 5 --training-steps 4000 --out s > log2 2>&1
for w in 1 2 4; do nice -n 15 python -m rheos evaluate s --n 1000 --guidance $w > ev$w 2>&1; cp s/evaluation.json ev$w.json; done
